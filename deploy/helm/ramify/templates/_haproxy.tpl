{{- define "ramify.host" -}}
{{ .root.Release.Name }}-{{ .i }}.{{ .root.Release.Name }}-servers.{{ .root.Release.Namespace }}.svc.{{ .root.Values.clusterDomain }}:8000
{{- end -}}

{{- /* deploy/haproxy.cfg, for any number of servers; a test holds them together. */ -}}
{{- define "ramify.haproxy" -}}
# HAProxy 2.6 or newer before two Ramify servers that share a PostgreSQL log; docs/front-doors.md says why.
# Each server has its own number as the setting `replica`. Limits and times are those of the server's own settings.
global
    log stdout format raw daemon
    maxconn 2048
    tune.bufsize 33792 # connections.head_bytes, and room for what is added

defaults
    mode http
    log global
    # No query and no header but the request's id: neither keys nor prompts.
    log-format "%ci %HM %HPO %ST %Tt %s %[var(txn.request)]"
    option abortonclose # a client that leaves ends its search
    option redispatch 1 # to another server if one cannot be reached
    retries 2
    retry-on conn-failure # what was sent is never sent again
    timeout connect 5s
    timeout http-request 15s # connections.head_seconds
    timeout http-keep-alive 60s
    timeout client 330s
    timeout server 330s # limits.deadline_seconds and spool.wait_seconds; streams ping every stream.ping_seconds
    http-error status 502 content-type application/json string '{"error":{"message":"the server that was asked has gone","type":"server_error","param":null,"code":"engine_unavailable"}}'
    http-error status 503 content-type application/json hdr Retry-After 5 string '{"error":{"message":"no server is ready","type":"server_error","param":null,"code":"engine_unavailable"}}'
    http-error status 504 content-type application/json string '{"error":{"message":"the server that was asked gave no answer in time","type":"server_error","param":null,"code":"engine_unavailable"}}'
    default-server init-addr last,libc,none resolvers system

resolvers system
    parse-resolv-conf

frontend public
    bind :8080
    # bind :8443 ssl crt /etc/haproxy/ramify.pem ssl-min-ver TLSv1.2 alpn h2,http/1.1
    http-request set-header x-request-id %[uuid()] unless { req.hdr(x-request-id) -m found }
    http-request set-var(txn.request) req.hdr(x-request-id)
    http-request set-header x-forwarded-for %[src]
    http-request set-header x-forwarded-proto https if { ssl_fc }
    # For operators only; the admin listener has a port of its own, which nothing here leads to. Servers decode a path too.
    http-request return status 404 content-type application/json string '{"error":{"message":"no such route","type":"invalid_request_error","param":null,"code":"unknown_route"}}' if { path,url_dec -m beg /admin } or { path,url_dec -m str /metrics }
    # limits.body_bytes; of a body that does not tell its length the server does the counting
    http-request return status 413 content-type application/json string '{"error":{"message":"the body is larger than the 1048576 bytes taken here","type":"invalid_request_error","param":null,"code":"body_too_large"}}' if { req.body_size gt 1048576 }
    # The last two digits of an id are its server's number.
{{- range $i := until (int .Values.replicas) }}
    http-request set-var(txn.owner) str(replica-{{ $i }}) if { path_reg '^/v1/.*[_-][0-9a-f]{30}{{ printf "%02x" $i }}(/|$)' }
{{- end }}
    use_backend continued if { var(txn.owner) -m found } { path_end /continue }
    use_backend owner if { var(txn.owner) -m found }
    use_backend sessions if { req.hdr(x-session-id) -m found }
    default_backend servers

# Health: a server that drains or is not ready gets nothing new, and ends what it runs.
backend servers
    balance leastconn
    option httpchk
    http-check send meth GET uri /readyz ver HTTP/1.1 hdr Host 127.0.0.1 # servers without keys take no other
    http-check expect status 200
    timeout check 12s # probe.deadline_seconds
    default-server inter 1s fall 1 rise 1 check
{{- range $i := until (int .Values.replicas) }}
    server replica-{{ $i }} {{ include "ramify.host" (dict "root" $ "i" $i) }}
{{- end }}

# One session, one server, unless that one has far more than its share: it has the head of its prompts in its cache.
backend sessions
    balance hash req.hdr(x-session-id)
    hash-type consistent
    hash-balance-factor 150 # per cent of the mean, above which hot sessions go to the next server (docs/fleet.md)
{{- range $i := until (int .Values.replicas) }}
    server replica-{{ $i }} {{ include "ramify.host" (dict "root" $ "i" $i) }} track servers/replica-{{ $i }}
{{- end }}

# What goes on from an ended search is a new one, which any ready server takes from the log: the owner of the first part,
# else always the same, so that two such requests meet.
backend continued
    balance hash path
    hash-type consistent
    use-server %[var(txn.owner)] if TRUE
{{- range $i := until (int .Values.replicas) }}
    server replica-{{ $i }} {{ include "ramify.host" (dict "root" $ "i" $i) }} track servers/replica-{{ $i }}
{{- end }}

# Requests about a search reach its owner, also while that one drains; if it is gone, another knows what is logged.
backend owner
    balance leastconn
    use-server %[var(txn.owner)] if TRUE
{{- range $i := until (int .Values.replicas) }}
    server replica-{{ $i }} {{ include "ramify.host" (dict "root" $ "i" $i) }}
{{- end }}
{{ end -}}
