"""``python -m ramify.settings > docs/configuration.md``"""

import sys

from ramify.settings.page import document

sys.stdout.write(document())
