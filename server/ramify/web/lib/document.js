// The server's own OpenAPI document.

/** Resolve a schema's references and drop null, which only says that a field may be omitted. */
export function shape(api, schema) {
  if (schema.$ref) return shape(api, api.components.schemas[schema.$ref.split("/").pop()]);
  const [only] = (schema.anyOf ?? []).filter((one) => one.type !== "null");
  return only ? { ...shape(api, only), ...(schema.description ? { description: schema.description } : {}) } : schema;
}

/** {algorithms, tasks}: what the server has, other packages' included. algorithms: the parameters of each, by its name. */
export function installed(api) {
  const asked = shape(api, api.components.schemas.SearchRequest).properties;
  return { algorithms: shape(api, asked.search)["x-ramify-algorithms"], tasks: shape(api, asked.task)["x-ramify-tasks"] };
}
