"""Who we are to S3, told by where the credentials come from and never by what they are.

Credentials come from the SDK's chain and nowhere else. In that chain a static key in the environment silently beats the
role that a cluster gives to a pod, so both together are refused: nobody could say which of them is meant.
"""

import os
from collections.abc import Mapping

_KEY = "AWS_ACCESS_KEY_ID"
_ROLES = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
)
_SOURCES = {
    "env": "the static key in the environment (AWS_ACCESS_KEY_ID)",
    "shared-credentials-file": "the shared credentials file",
    "config-file": "the AWS configuration file",
    "custom-process": "a credential process of the AWS configuration",
    "assume-role": "a role that the AWS configuration assumes",
    "assume-role-with-web-identity": "a role by web identity token (AWS_WEB_IDENTITY_TOKEN_FILE)",
    "container-role": "the container's role",
    "iam-role": "the machine's role",
    "sso": "a single sign-on session",
    "login": "a login session of the AWS command line",
}


def given_twice(environment: Mapping[str, str] | None = None) -> str | None:
    """What is wrong when the environment gives a static key and a role at once; None when it does not."""
    found = os.environ if environment is None else environment
    role = next((name for name in _ROLES if found.get(name)), None)
    if not (found.get(_KEY) and role):
        return None
    return (
        f"two identities at once: a static key ({_KEY}) and a role ({role}); the key would win without a word. Give "
        "one: leave out the Secret with the key (cluster.secret: null), or the role of the pod's service account"
    )


def source(method: str) -> str:
    """Where the SDK found credentials, in words; ``method`` is the SDK's own word for it."""
    return _SOURCES.get(method, method)
