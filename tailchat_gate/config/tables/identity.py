"""The tables about people and machines: Tailchat, sessions, tokens and assertions."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    Field,
    StrictBool,
    ValidationInfo,
    field_validator,
    model_validator,
)

from tailchat_gate.config.tables.fields import (
    Approvers,
    BaseUrl,
    ClientId,
    ClientSecret,
    CookieName,
    Deny,
    Issuer,
    Moment,
    NoticeKind,
    Notices,
    Panel,
    Scope,
    Seconds,
    Section,
    SessionSecrets,
    Size,
)
from tailchat_gate.config.tables.route_fields import PemFile, RouteNames, TokenHash, TokenName
from tailchat_gate.config.values.identifier import distinct
from tailchat_gate.config.values.path import file_or_none
from tailchat_gate.config.values.quantities import format_duration
from tailchat_gate.config.values.url import base_url_or_none, proxy_address
from tailchat_gate.syntax import SESSION_COOKIE

#: What happens to a session while Tailchat is unreachable for a recheck.
Outage = Literal["keep", "sign-in", "fail"]
_MINUTE = 60.0
LONGEST_SESSION = 30 * 86400.0
#: The most seconds for a whole call; Tailchat never answers while its Redis is frozen.
LONGEST_CALL = 10.0
_HOUR = 3600.0
_LONGEST_AGE = 86400.0
_LARGEST_GROUPS = 128 << 20
_SHORTEST = 30.0
_LONGEST = 300.0


class Tailchat(Section):
    """The Tailchat server that visitors sign in with, and the app registered there."""

    secret_forms: ClassVar[Mapping[str, Mapping[str, str]]] = MappingProxyType(
        {
            "client_secret": MappingProxyType(
                {
                    "client_secret": "The App Secret of the app in Tailchat.",
                    "client_secret_file": (
                        "File with the secret of the app, instead of the key above."
                    ),
                }
            )
        }
    )

    api_url: BaseUrl = Field(
        description="Address of the Tailchat server as browsers reach it, without /open.",
        examples=["https://tailchat.example.com"],
    )
    client_id: ClientId = Field(
        description="The App ID of the app in Tailchat.",
        examples=["tc_649aa2179e97b8b3b2d10041"],
    )
    client_secret: ClientSecret = Field(description="The App Secret of the app in Tailchat.")
    scope: Scope = Field(
        default="openid profile",
        description="What is asked of Tailchat; openid is required, profile brings the nickname.",
    )
    issuer: Issuer = Field(
        default="",
        description=(
            "Issuer that a login has to come from, Tailchat's API_URL byte for byte; empty learns "
            "it from Tailchat."
        ),
    )
    timeout: Annotated[float, Seconds(above_zero=True, high=LONGEST_CALL)] = Field(
        default=10.0, description="How long one call to Tailchat may take in all, 10s at most."
    )
    internal_url: Annotated[str, AfterValidator(base_url_or_none)] = Field(
        default="",
        description=(
            "Address at which the gate itself reaches Tailchat, where that is another than api_url."
        ),
        examples=["http://tailchat:11000"],
    )
    ca_file: Annotated[str, AfterValidator(file_or_none)] = Field(
        default="",
        description=(
            "PEM file with the authorities that Tailchat's certificate is trusted by, in place of "
            "the system's."
        ),
        examples=["/etc/ssl/our-authority.pem"],
    )
    proxy: Annotated[str, AfterValidator(proxy_address)] = Field(
        default="",
        description=(
            'HTTP proxy between the gate and Tailchat; "environment" for what HTTP_PROXY, '
            "HTTPS_PROXY and NO_PROXY say."
        ),
        examples=["http://proxy.example.com:3128"],
    )
    groups_refresh: Annotated[float, Seconds(low=1.0, high=_HOUR)] = Field(
        default=30.0,
        description="How often the members of Tailchat's groups are read again, from 1s to 1h.",
    )
    groups_max_age: Annotated[float, Seconds(low=1.0, high=_LONGEST_AGE)] = Field(
        default=600.0,
        description=(
            "How long the last answer about Tailchat's groups counts while there is no other; 1d "
            "at most."
        ),
    )
    groups_max_bytes: Annotated[int, Size(high=_LARGEST_GROUPS)] = Field(
        default=8 << 20,
        description=(
            "Size of the largest answer about Tailchat's groups that is read; strangers can make "
            "it grow."
        ),
    )

    @model_validator(mode="after")
    def _beyond_refresh(self) -> Self:
        if self.groups_max_age < self.groups_refresh:
            least = format_duration(self.groups_refresh)
            raise ValueError(f'groups_max_age of at least "{least}", which is groups_refresh')
        return self

    people_refresh: Annotated[float, Seconds(high=_HOUR)] = Field(
        default=30.0,
        description=(
            "How often Tailchat is asked about people who are signed in, for bans, names and "
            "e-mail addresses, 1h at most; 0 turns it off."
        ),
    )
    unverified_email: StrictBool = Field(
        default=False,
        description=(
            "Whether tools get e-mail addresses that Tailchat did not verify: anybody can have "
            "registered with them."
        ),
    )


class Session(Section):
    """How long a sign-in lasts and what its cookie is sealed with."""

    secret_forms: ClassVar[Mapping[str, Mapping[str, str]]] = MappingProxyType(
        {
            "secrets": MappingProxyType(
                {
                    "secret": "Secret that cookies are sealed with, 32 random characters or more.",
                    "secrets": "Several such secrets: the first seals, all of them open.",
                    "secret_file": "File with such secrets, one a line, instead of the keys above.",
                }
            )
        }
    )

    secrets: SessionSecrets = Field(
        description="Secrets that cookies are sealed with: the first seals, all of them open.",
        repr=False,
    )
    cookie_name: CookieName = Field(
        default=SESSION_COOKIE,
        description="Name of the session cookie, another for each gate on one host name.",
        examples=["tailchat_gate_two"],
    )
    lifetime: Annotated[float, Seconds(above_zero=True, high=LONGEST_SESSION)] = Field(
        default=43200.0, description="How long after the sign-in a session ends, 30d at most."
    )
    idle: Annotated[float, Seconds(high=LONGEST_SESSION)] = Field(
        default=0.0,
        description="How long after the last request a session ends, 1m or more; 0 turns it off.",
    )

    recheck: Annotated[float, Seconds(high=LONGEST_SESSION)] = Field(
        default=0.0,
        description=(
            "How long after Tailchat confirmed a person it is asked again, 1m or more; 0 turns it "
            "off. For longer than an hour it takes the scope offline_access."
        ),
    )
    recheck_outage: Outage = Field(
        default="keep",
        description=(
            "What happens to a session that Tailchat cannot be asked about: it goes on, the person "
            "signs in again, or requests fail until Tailchat answers."
        ),
    )

    store: StrictBool = Field(
        default=False,
        description=(
            "Whether sessions are kept in the state store and cookies are short tickets to them: "
            "people see their sign-ins and end each of them, and so does `tailchat-gate sessions`. "
            "It takes state.path or state.url."
        ),
    )

    @field_validator("idle", "recheck")
    @classmethod
    def _within_lifetime(cls, value: float, info: ValidationInfo) -> float:
        lifetime = info.data.get("lifetime", LONGEST_SESSION)
        if value and not _MINUTE <= value <= lifetime:
            raise ValueError(
                f'"0", or from "1m" to "{format_duration(lifetime)}", the session\'s lifetime'
            )
        return value


class Access(Section):
    """Who may enter, on all routes alike."""

    guests: StrictBool = Field(
        default=False, description="Whether Tailchat's guest accounts and bots may enter."
    )
    deny: Deny = Field(
        default=(),
        description=(
            "Who may enter no route, whatever its allow says: group:NAME, sub:ID or token:NAME; "
            "where everybody may, these do as nobody."
        ),
        examples=[["sub:660000000000000000000009"]],
    )
    requests: StrictBool = Field(
        default=False,
        description=(
            "Whether a person who is refused a tool may ask for it; approvers decide on a page."
        ),
    )
    approvers: Approvers = Field(
        default=(),
        description="Who decides requests for access: group:NAME or sub:ID.",
        examples=[["group:ops"]],
    )
    panel: Panel = Field(
        default="",
        description=(
            "Panel of a Tailchat group into which the bot writes of requests, as GROUP/PANEL by "
            "their ids."
        ),
        examples=["66aa00000000000000000001/66bb00000000000000000001"],
    )
    panel_notices: Notices = Field(
        default=get_args(NoticeKind),
        description=(
            "What the bot writes into the panel besides requests: locks set and lifted, reloads "
            "that were refused, many refused sign-ins, and tools that cannot be reached."
        ),
    )

    @model_validator(mode="after")
    def _decided_by_somebody(self) -> Self:
        if self.requests and not self.approvers:
            raise ValueError("approvers: expected at least one entry where requests = true")
        return self


class Token(Section):
    """A [[token]] of the file."""

    name: TokenName = Field(
        description="Name of the token in allow lists, logs and headers, unique in any case.",
        examples=["backup"],
    )
    hash: TokenHash = Field(
        description="Hash of the token, as `tailchat-gate token NAME` prints it.",
        examples=["sha256:..."],
        repr=False,  # an admin may have written the token itself by mistake
    )
    routes: RouteNames | None = Field(
        default=None,
        description=(
            "Names of the routes that the token is good for; left out, every route whose allow "
            "names it."
        ),
        examples=[["wiki"]],
    )
    expires: Annotated[float, Moment()] | None = Field(
        default=None,
        description=(
            "When the token ends: a date, or a date and time with its zone; left out, it does not."
        ),
        examples=["2027-01-01"],
    )


class Assertion(Section):
    """The signed identity that tools can check; off without a key."""

    key_files: Annotated[tuple[PemFile, ...], AfterValidator(distinct)] = Field(
        default=(),
        description=(
            "PEM files with the private keys, EC P-256, of X-Tailchat-Assertion: the first signs, "
            "all are published; empty turns it off."
        ),
        examples=[["/etc/tailchat-gate/assertion.pem"]],
    )
    lifetime: Annotated[float, Seconds(low=_SHORTEST, high=_LONGEST, above_zero=True)] = Field(
        default=_LONGEST,
        description="How long an assertion is good, from 30s to 5m.",
    )
