"""The table of the gate itself: where it listens and what it is called from outside."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StrictBool, ValidationInfo, field_validator

from tailchat_gate.config.tables.fields import (
    Listeners,
    Network,
    Origin,
    Prefix,
    Seconds,
    Section,
    UnixGroup,
    UnixMode,
    Via,
    Whole,
)
from tailchat_gate.config.tables.route_fields import Host, PemFile
from tailchat_gate.config.values import address
from tailchat_gate.config.values.identifier import distinct

#: The keys with addresses where visitors connect, in the order of the file.
PUBLIC_ADDRESSES = ("listen", "https_listen", "redirect_listen")


class Certificate(Section):
    """A certificate of the gate for its own TLS, and the key that belongs to it."""

    certificate: PemFile = Field(
        description=(
            "PEM file with the certificate of the hosts, and below it those that lead to its "
            "authority."
        ),
        examples=["/etc/letsencrypt/live/example.com/fullchain.pem"],
    )
    key: PemFile = Field(
        description="PEM file with the private key of `certificate`, without a password.",
        examples=["/etc/letsencrypt/live/example.com/privkey.pem"],
    )


class Server(Section):
    """Where the gate listens and what it is called from outside."""

    listen: Listeners = Field(
        default=("127.0.0.1:4180",),
        description=(
            "Where visitors connect: host:port, unix:/path, or a list of these; [] is nowhere but "
            "https_listen."
        ),
        examples=["0.0.0.0:4180", "unix:/run/gate.sock"],
    )
    unix_mode: UnixMode = Field(
        default="0660",
        description="Mode of the Unix sockets that server.listen names: who may connect.",
    )
    unix_group: UnixGroup = Field(
        default="",
        description=(
            "Group of these sockets, by its name or number, such as that of the proxy in front; "
            "empty leaves the group of the gate's own user."
        ),
        examples=["www-data"],
    )
    public_url: Origin = Field(
        description=(
            "Origin under which browsers reach the gate's own pages; Tailchat sends them back to "
            "public_url + prefix + /callback."
        ),
        examples=["https://gate.example.com"],
    )
    prefix: Prefix = Field(
        default="/oauth2", description="Path under which the gate's own pages lie."
    )
    admin_listen: str = Field(
        default="127.0.0.1:4181",
        validate_default=True,
        description=(
            "Where health, metrics and status are served, host:port or unix:/path; empty turns "
            "them off."
        ),
    )
    admin_hosts: Annotated[tuple[Host, ...], AfterValidator(distinct)] = Field(
        default=(),
        description=(
            "Further names by which admin_listen is asked; addresses, localhost, names without a "
            "dot and its own name need none."
        ),
        examples=[["gate.monitoring.svc.cluster.local"]],
    )
    admin_orders: StrictBool = Field(
        default=False,
        description=(
            "Whether the admin page takes orders about people on admin_listen, which has no "
            "sign-in: locks, grants, decisions on requests, ending connections."
        ),
    )
    trusted_proxies: tuple[Network, ...] = Field(
        default=(),
        description=(
            "Addresses and networks of the proxies in front whose X-Forwarded-* headers are "
            "believed; empty believes nobody's."
        ),
        examples=[["10.0.0.2"]],
    )
    https_listen: Listeners = Field(
        default=(),
        validate_default=True,
        description=(
            "Where visitors connect by HTTPS, with the certificates of [[server.tls]]: host:port, "
            "unix:/path, or a list of these."
        ),
        examples=["0.0.0.0:443"],
    )
    redirect_listen: Listeners = Field(
        default=(),
        description=(
            "Where visitors who come by plain HTTP are only redirected to HTTPS: host:port, "
            "unix:/path, or a list of these."
        ),
        examples=["0.0.0.0:80"],
    )
    tls: tuple[Certificate, ...] = Field(
        default=(),
        validate_default=True,
        description=(
            "The gate's certificates, one [[server.tls]] each; the name that a client asks for "
            "chooses one, and the first is for all other names."
        ),
    )
    handshake_timeout: Annotated[float, Seconds(above_zero=True)] = Field(
        default=10.0,
        description=(
            "How long a TLS handshake may take, and before it the PROXY header where one is "
            "required."
        ),
    )
    hsts: Annotated[float, Seconds()] = Field(
        default=0.0,
        description=(
            "For how long browsers use nothing but HTTPS for a host that they have seen, by "
            "Strict-Transport-Security; 0 sends no such header."
        ),
        examples=["365d"],
    )
    client_ca: PemFile | None = Field(
        default=None,
        description=(
            "PEM file with the authorities of client certificates, which https_listen then asks "
            "for."
        ),
        examples=["/etc/tailchat-gate/clients.pem"],
    )
    client_certificate: Literal["required", "optional"] = Field(
        default="required",
        validate_default=True,
        description=(
            "Whether a client without a certificate of client_ca may connect; one with a bad "
            "certificate never may."
        ),
    )
    pass_client_certificate: StrictBool = Field(
        default=False,
        description="Whether tools get the client's certificate in Client-Cert.",
    )
    proxy_protocol: Listeners = Field(
        default=(),
        description=(
            "Those of the gate's addresses on which every connection must come from one of "
            "trusted_proxies and begin with a PROXY protocol header, version 1 or 2."
        ),
        examples=["0.0.0.0:4180"],
    )
    workers: Annotated[int | str, Whole(1, 128, auto=True)] = Field(
        default=1,
        description=(
            "How many processes serve; auto is one for each processor that the gate may use."
        ),
    )
    drain_delay: Annotated[float, Seconds()] = Field(
        default=0.0,
        description=(
            "How long the gate goes on to take connections after a signal to stop, while /readyz "
            "already says no and each response closes its connection."
        ),
        examples=["5s"],
    )
    shutdown_timeout: Annotated[float, Seconds()] = Field(
        default=30.0, description="How long open requests may go on after a signal to stop."
    )
    keepalive_timeout: Annotated[float, Seconds(above_zero=True)] = Field(
        default=75.0, description="How long an idle connection of a visitor stays open."
    )
    header_timeout: Annotated[float, Seconds(above_zero=True)] = Field(
        default=20.0, description="How long the head of a request may take to arrive."
    )
    body_timeout: Annotated[float, Seconds()] = Field(
        default=60.0,
        description="How long a visitor may be silent within a body; 0 is no limit.",
    )
    half_closed_timeout: Annotated[float, Seconds()] = Field(
        default=5.0,
        description="How long a visitor that has stopped sending waits for a silent tool; 0 takes "
        "it for gone at once.",
    )
    via: Via = Field(
        default="tailchat-gate",
        description="Name of the gate in the Via header of requests to tools; empty sends none.",
    )
    forwarded: StrictBool = Field(
        default=False,
        description="Whether tools get the Forwarded header besides X-Forwarded-*.",
    )
    real_ip: StrictBool = Field(
        default=False,
        description="Whether tools get the visitor's address in X-Real-IP too.",
    )
    watch: StrictBool = Field(
        default=True,
        description="Whether a change of this file, or of one that it names, is loaded by itself.",
    )

    @property
    def longest_stop(self) -> float:
        """How many seconds a shutdown may wait for clients."""
        return self.drain_delay + self.shutdown_timeout

    @property
    def public_addresses(self) -> tuple[str, ...]:
        """Every address where visitors connect."""
        return (*self.listen, *self.https_listen, *self.redirect_listen)

    @field_validator("admin_listen")
    @classmethod
    def _admin_listener(cls, value: str, info: ValidationInfo) -> str:
        if not value:
            return value
        try:
            admin = address.listen(value)
        except ValueError as wrong:
            raise ValueError(f'{wrong}, or "" to turn it off') from None
        if admin in (info.data.get("listen") or ()) and not admin.endswith(":0"):
            raise ValueError("an address that server.listen does not have")
        return admin

    @field_validator("https_listen")
    @classmethod
    def _somewhere(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if not value and info.data.get("listen") == ():
            raise ValueError("at least one address, since server.listen has none")
        return value

    @field_validator("https_listen", "redirect_listen")
    @classmethod
    def _own_address(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        taken = {info.data.get("admin_listen", ""), *_public(info)}
        if twice := [listen for listen in value if listen in taken and not listen.endswith(":0")]:
            raise ValueError(f"addresses of its own; {twice[0]} is another listener's")
        if value and not _is_https(info):
            raise ValueError("the key left out, or a server.public_url with https")
        return value

    @field_validator("tls")
    @classmethod
    def _both_or_none(
        cls, value: tuple[Certificate, ...], info: ValidationInfo
    ) -> tuple[Certificate, ...]:
        listens = info.data.get("https_listen")
        if listens and not value:
            raise ValueError("at least one [[server.tls]], since server.https_listen is set")
        if value and not listens and listens is not None:
            raise ValueError("the table left out, or server.https_listen beside it")
        return value

    @field_validator("hsts")
    @classmethod
    def _only_by_https(cls, value: float, info: ValidationInfo) -> float:
        if value and not _is_https(info):
            raise ValueError("0, or a server.public_url with https")
        return value

    @field_validator("client_ca")
    @classmethod
    def _of_tls(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and not info.data.get("https_listen", True):
            raise ValueError("the key left out, or server.https_listen beside it")
        return value

    @field_validator("client_certificate", "pass_client_certificate")
    @classmethod
    def _of_clients(cls, value: object, info: ValidationInfo) -> object:
        default = cls.model_fields[info.field_name or ""].default
        if value != default and info.data.get("client_ca", "") is None:
            raise ValueError("the key left out, or server.client_ca beside it")
        return value

    @field_validator("client_certificate")
    @classmethod
    def _no_way_past(cls, value: str, info: ValidationInfo) -> str:
        """Refuse a required client certificate beside an address without TLS that others reach."""
        past = [
            listen for listen in info.data.get("listen") or () if not address.stays_here(listen)
        ]
        if value == "required" and info.data.get("client_ca") is not None and past:
            raise ValueError(
                f'"optional", or server.listen without {past[0]}, where everybody could connect '
                "without a certificate; loopback and Unix sockets may stay"
            )
        return value

    @field_validator("proxy_protocol")
    @classmethod
    def _from_trusted(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if value and not info.data.get("trusted_proxies", True):
            raise ValueError("the key left out, or the proxies in server.trusted_proxies")
        known = all(info.data.get(key) is not None for key in PUBLIC_ADDRESSES)
        if known and not set(value) <= set(_public(info)):
            raise ValueError(f"addresses of {', '.join(PUBLIC_ADDRESSES)}")
        return value


def _public(info: ValidationInfo) -> list[str]:
    """Return the valid addresses where visitors connect, of the keys read so far."""
    return [listen for key in PUBLIC_ADDRESSES for listen in info.data.get(key) or ()]


def _is_https(info: ValidationInfo) -> bool:
    """Whether visitors use HTTPS; assumed if public_url has a problem of its own."""
    return str(info.data.get("public_url", "https:")).startswith("https:")
