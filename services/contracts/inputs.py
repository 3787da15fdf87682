"""The one input of a model: which tensor it takes, and how a sample's bytes become it."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from services.contracts.tasks import Kind

Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Side = Annotated[int, Field(ge=1, le=4096)]
Name = Annotated[str, Field(min_length=1, max_length=256)]

MAX_VALUES = 1 << 24
"""Most values one input tensor may hold for one sample (64 MiB of float32)."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TabularColumn(_Frozen):
    """A column of a row: a number, standardised as (value - mean) / scale, or a category, one-hot."""

    name: Name
    kind: Literal["number", "category"] = "number"
    mean: Finite = 0.0
    scale: Positive = 1.0
    categories: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _categories_belong_to_a_category(self) -> Self:
        if (self.kind == "category") != bool(self.categories):
            raise ValueError(f"column {self.name!r}: a category column, and no other, lists its categories")
        if len(set(self.categories)) != len(self.categories):
            raise ValueError(f"column {self.name!r}: a category is listed twice")
        return self

    @property
    def width(self) -> int:
        """Number of values this column has in the tensor."""
        return len(self.categories) or 1


class InputSpec(_Frozen):
    """The one input of a model, and how a sample's bytes become it.

    Images: value = (pixel * scale - mean[c]) / std[c], pixels 0..255; tensor (N, C, H, W), or (N, H, W, C)
    by `layout`.
    Tabular: the columns in order, tensor (N, F).
    Text: its words and runs of up to `ngrams` words, hashed into `features` counts, tensor (N, F).
    Series: the columns of `length` points, oldest first, tensor (N, L, F).
    """

    name: Name = "input"
    kind: Kind
    shape: tuple[int | None, ...]
    dtype: Literal["float32"] = "float32"
    height: Side | None = None
    width: Side | None = None
    channels: Literal[1, 3] | None = None
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    scale: Positive = 1 / 255
    mean: tuple[Finite, ...] = ()
    std: tuple[Positive, ...] = ()
    columns: tuple[TabularColumn, ...] = ()
    features: Annotated[int, Field(ge=16, le=1 << 20)] | None = None
    ngrams: Annotated[int, Field(ge=1, le=3)] = 2
    length: Annotated[int, Field(ge=1, le=8640)] | None = None

    @classmethod
    def image(cls, height: int, width: int, channels: int, **more: Any) -> Self:
        """An image input; its shape follows from the sides, the channels and the layout."""
        sides = (height, width, channels) if more.get("layout") == "NHWC" else (channels, height, width)
        fields = {"kind": "image", "height": height, "width": width, "channels": channels, **more}
        return cls.model_validate({"shape": (None, *sides), **fields})

    @classmethod
    def tabular(cls, columns: tuple[TabularColumn, ...] | list[TabularColumn], name: str = "input") -> Self:
        """A tabular input; its width is the sum of its columns' widths."""
        width = sum(column.width for column in columns)
        return cls(name=name, kind="tabular", shape=(None, width), columns=tuple(columns))

    @classmethod
    def text(cls, features: int = 4096, **more: Any) -> Self:
        """A text input of that many hashed counts."""
        return cls.model_validate({"kind": "text", "shape": (None, features), "features": features, **more})

    @classmethod
    def series(cls, length: int, columns: tuple[TabularColumn, ...] | list[TabularColumn], **more: Any) -> Self:
        """A window of that many points of a stream, each with the columns."""
        shape = (None, length, sum(column.width for column in columns))
        return cls.model_validate(
            {"kind": "series", "shape": shape, "length": length, "columns": tuple(columns), **more}
        )

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample's tensor, without the batch."""
        return tuple(size for size in self.shape[1:] if size is not None)

    @property
    def media_type(self) -> str | None:
        """The one media type that a sample's content has; None for pictures, which have several."""
        return {"tabular": "application/json", "series": "application/json", "text": "text/plain"}.get(self.kind)

    @model_validator(mode="after")
    def _shape_follows_from_the_kind(self) -> Self:
        self._nothing_else()
        expected = {
            "image": self._image_shape,
            "tabular": self._tabular_shape,
            "text": self._text_shape,
            "series": self._series_shape,
        }[self.kind]()
        if self.shape != expected:
            raise ValueError(f"shape {list(self.shape)} does not fit the {self.kind} input: {list(expected)}")
        total = 1
        for size in expected[1:]:
            total *= size or 1
        if total > MAX_VALUES:
            raise ValueError(f"one sample would hold {total} values, more than {MAX_VALUES}")
        return self

    def _nothing_else(self) -> None:
        """What belongs to other kinds is absent, so that a manifest never promises what nobody does."""
        own = {
            "image": {"height", "width", "channels", "mean", "std"},
            "tabular": {"columns"},
            "text": {"features"},
            "series": {"columns", "length"},
        }
        every = {name for names in own.values() for name in names}
        strange = sorted(name for name in every - own[self.kind] if getattr(self, name))
        if strange:
            raise ValueError(f"{self.kind} input: {', '.join(strange)} belong to another kind")

    def _image_shape(self) -> tuple[int | None, ...]:
        if self.height is None or self.width is None or self.channels is None:
            raise ValueError("an image input has height, width and channels")
        for field in (self.mean, self.std):
            if field and len(field) != self.channels:
                raise ValueError("mean and std are empty, or have one value per channel")
        if self.layout == "NHWC":
            return (None, self.height, self.width, self.channels)
        return (None, self.channels, self.height, self.width)

    def _tabular_shape(self) -> tuple[int | None, ...]:
        return (None, self._row_width())

    def _text_shape(self) -> tuple[int | None, ...]:
        if self.features is None:
            raise ValueError("a text input says into how many features its words are hashed")
        return (None, self.features)

    def _series_shape(self) -> tuple[int | None, ...]:
        if self.length is None:
            raise ValueError("a series input says how many points long its window is")
        return (None, self.length, self._row_width())

    def _row_width(self) -> int:
        if not self.columns:
            raise ValueError(f"a {self.kind} input has columns")
        names = [column.name for column in self.columns]
        if len(set(names)) != len(names):
            raise ValueError("a column is named twice")
        return sum(column.width for column in self.columns)
