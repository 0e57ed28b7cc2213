"""The table of the gate's own pages."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema

from tailchat_gate.config.tables.fields import Contact, Section, empty, matching
from tailchat_gate.config.values import brand, tile

_COLOUR = matching("(#[0-9A-Fa-f]{6})?")
Footer = Annotated[
    Mapping[
        Annotated[str, AfterValidator(brand.link_text)],
        Annotated[str, AfterValidator(brand.link)],
    ],
    AfterValidator(brand.few),
    PlainSerializer(dict, when_used="json"),
    WithJsonSchema({"type": "object", "additionalProperties": matching("(https?://|mailto:).+")}),
]
_OfLanguage = Annotated[
    Mapping[
        Annotated[str, AfterValidator(brand.text_key)],
        Annotated[str, AfterValidator(brand.own_text)],
    ],
    BeforeValidator(brand.flat_texts),
    AfterValidator(brand.with_placeholders),
]
Texts = Annotated[
    Mapping[Annotated[str, AfterValidator(brand.text_language)], _OfLanguage],
    AfterValidator(brand.frozen_texts),
    PlainSerializer(
        lambda texts: {language: dict(table) for language, table in texts.items()}, when_used="json"
    ),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": "object"}}),
]


class Pages(Section):
    """What visitors see of the gate itself."""

    sign_in: Literal["redirect", "page"] = Field(
        default="redirect",
        description=(
            "Whether a visitor goes straight to Tailchat, or sees a sign-in page first, which also "
            "keeps the #fragment of the address."
        ),
    )
    contact: Contact = Field(
        default="",
        description="Whom visitors can ask for help, as one line of text on the gate's pages.",
    )
    title: Annotated[str, AfterValidator(tile.title)] = Field(
        default="",
        description="Name of the site on every page; empty is Tailchat Gate.",
        examples=["Example Ltd"],
    )
    logo: Annotated[str, AfterValidator(brand.logo)] = Field(
        default="",
        description="Path of a picture of at most 32 KiB that stands before the name.",
        examples=["/etc/tailchat-gate/logo.svg"],
    )
    accent: Annotated[str, AfterValidator(brand.accent), WithJsonSchema(_COLOUR)] = Field(
        default="",
        description="Colour of links and buttons on light pages; empty is a blue.",
        examples=["#8a1c4a"],
    )
    accent_dark: Annotated[str, AfterValidator(brand.accent_dark), WithJsonSchema(_COLOUR)] = Field(
        default="",
        description="The same on dark pages; empty is a light blue.",
        examples=["#f0a3c4"],
    )
    footer: Footer = Field(
        default_factory=empty,
        description="Links at the foot of every page: the text of each, and its address.",
        examples=[{"Imprint": "https://example.com/imprint"}],
    )
    texts: Texts = Field(
        default_factory=empty,
        description="Texts in the place of the pages' own, by language and key.",
        examples=[{"en": {"sign_in.text": "Use the account of the staff chat."}}],
    )
