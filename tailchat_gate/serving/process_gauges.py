"""The metric families whose values are read from the state of a process."""

from typing import Final

from tailchat_gate.observe.families import Family, Merge, gauge

_MAX, _MIN = Merge.MAX, Merge.MIN
WEBSOCKETS: Final = gauge("gate_websockets_open", "WebSockets open.")
BUFFER_MEMORY: Final = gauge(
    "gate_request_buffer_memory_bytes", "Bytes of requests' bodies that are kept in memory."
)
BUFFER_FILES: Final = gauge("gate_request_buffer_files", "Requests' bodies that are kept in files.")
RATE_LIMITED: Final = Family(
    "gate_rate_limited", "Requests and steps of sign-ins that a rate limit refused.", ("limit",)
)
RATES_SHARED: Final = gauge(
    "gate_rates_shared",
    "Whether rate limits count the requests of all gates (with state.url); 0: of this one.",
    merge=_MIN,
)
LOCKS: Final = gauge("gate_locks", "Locks in force.", merge=_MAX)
PEOPLE: Final = gauge("gate_people", "People whom Tailchat is asked about.")
BLOCKED: Final = gauge(
    "gate_people_blocked",
    "Accounts blocked because Tailchat banned or deleted them, guests and bots.",
    merge=_MAX,
)
HEARD: Final = gauge(
    "gate_people_answer_timestamp_seconds",
    "When Tailchat last answered about people, in Unix seconds; 0 for never.",
    merge=_MAX,
)
GRANTS: Final = gauge("gate_grants", "Grants in force.", merge=_MAX)
ACCESS_REQUESTS: Final = gauge(
    "gate_access_requests", "Requests for access that wait for a decision.", merge=_MAX
)
STATE_FAULTS: Final = gauge(
    "gate_state_faults", "Faults of the state store at present.", merge=_MAX
)
SIGN_IN_BROKEN: Final = gauge(
    "gate_sign_in_broken", "Whether the last check found that nobody can sign in.", merge=_MAX
)
GENERATION: Final = gauge(
    "gate_generation",
    "How many configurations were in force, the present one among them.",
    merge=_MAX,
)
RELOADED: Final = gauge(
    "gate_config_last_reload_success",
    "Whether the last configuration that was loaded is in force.",
    merge=_MIN,
)
RELOADED_AT: Final = gauge(
    "gate_config_last_reload_timestamp_seconds",
    "When a configuration was last loaded or refused, in Unix seconds.",
    merge=_MAX,
)
GROUPS_AGE: Final = gauge(
    "gate_tailchat_groups_age_seconds",
    "Age of the last answer about Tailchat's groups, 0 if no group needs one.",
    merge=_MAX,
)
GROUPS_UNKNOWN: Final = gauge(
    "gate_tailchat_groups_unknown", "Groups of which it is not known who is in them.", merge=_MAX
)
GROUP_MEMBERS: Final = gauge(
    "gate_tailchat_group_members",
    "Members that a group has from Tailchat.",
    ("group",),
    merge=_MAX,
)
TOKEN_EXPIRY: Final = gauge(
    "gate_token_next_expiry_timestamp_seconds",
    "When the next token of a machine expires, in Unix seconds.",
    merge=_MIN,
)
CERTIFICATE_EXPIRY: Final = gauge(
    "gate_certificate_expiry_timestamp_seconds",
    "When the first certificate in a file of the configuration expires, in Unix seconds.",
    ("file",),
    merge=_MIN,
)
