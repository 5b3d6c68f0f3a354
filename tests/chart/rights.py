"""Who may do what in a namespace: the tables that Roles, plain and rendered, and a real API server are held to."""

from typing import Any

Rights = dict[tuple[str, ...], set[str]]
"""Verbs by API group, resource and, where one object alone is meant, its name."""

CONTROLLER: Rights = {
    ("batch", "jobs"): {"get", "list", "watch", "create", "delete"},
    ("", "pods"): {"get", "list", "watch"},
    ("", "pods/log"): {"get"},
    ("", "services"): {"get", "list", "create", "delete"},
    ("", "events"): {"get", "list"},
    ("", "resourcequotas"): {"get", "list"},
}
"""All that a controller may do."""

PEOPLE: Rights = {
    ("batch", "jobs"): {"get", "list", "watch", "create", "delete"},
    ("", "pods"): {"get", "list", "watch", "delete"},
    ("", "pods/log"): {"get"},
    ("", "events"): {"get", "list"},
    ("", "resourcequotas"): {"get", "list"},
    ("", "serviceaccounts"): {"get"},
    ("", "configmaps", "mstar-defaults"): {"get"},
}
"""All that the Role for people gives. Who may create Jobs may use the namespace's Secrets and accounts in them."""

STAGE: Rights = {}
"""A stage's pod may do nothing."""


def rights(role: dict[str, Any]) -> Rights:
    """What a Role gives. A star would be a resource, or a verb, of that name."""
    found: Rights = {}
    for rule in role["rules"]:
        assert rule.keys() <= {"apiGroups", "resources", "resourceNames", "verbs"}
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                kind: tuple[str, ...] = (group, resource)
                names = [(*kind, name) for name in rule.get("resourceNames", [])]
                for key in names or [kind]:
                    found.setdefault(key, set()).update(rule["verbs"])
    return found
