"""The model manifest: what a model takes, what it gives, and the hash of the bytes that do it."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Task = Literal["image-classification", "tabular-classification"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
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
    """

    name: Name = "input"
    kind: Literal["image", "tabular"]
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

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample's tensor, without the batch."""
        return tuple(size for size in self.shape[1:] if size is not None)

    @model_validator(mode="after")
    def _shape_follows_from_the_kind(self) -> Self:
        expected = self._image_shape() if self.kind == "image" else self._tabular_shape()
        if self.shape != expected:
            raise ValueError(f"shape {list(self.shape)} does not fit the {self.kind} input: {list(expected)}")
        total = 1
        for size in expected[1:]:
            total *= size or 1
        if total > MAX_VALUES:
            raise ValueError(f"one sample would hold {total} values, more than {MAX_VALUES}")
        return self

    def _image_shape(self) -> tuple[int | None, ...]:
        if self.height is None or self.width is None or self.channels is None or self.columns:
            raise ValueError("an image input has height, width and channels, and no columns")
        for field in (self.mean, self.std):
            if field and len(field) != self.channels:
                raise ValueError("mean and std are empty, or have one value per channel")
        if self.layout == "NHWC":
            return (None, self.height, self.width, self.channels)
        return (None, self.channels, self.height, self.width)

    def _tabular_shape(self) -> tuple[int | None, ...]:
        if not self.columns or self.height or self.width or self.channels or self.mean or self.std:
            raise ValueError("a tabular input has columns, and neither sides nor channels")
        names = [column.name for column in self.columns]
        if len(set(names)) != len(names):
            raise ValueError("a column is named twice")
        return (None, sum(column.width for column in self.columns))


class OutputSpec(_Frozen):
    """Names of the outputs: probabilities (N, C), embedding (N, D), margin (N,); not all may be absent."""

    probabilities: Name | None = None
    embedding: Name | None = None
    margin: Name | None = None

    @model_validator(mode="after")
    def _gives_something(self) -> Self:
        if self.probabilities is None and self.embedding is None:
            raise ValueError("a model gives probabilities, or an embedding, or both")
        if self.margin is not None and self.probabilities is None:
            raise ValueError("a margin is taken of probabilities, which this model does not give")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The outputs' names that are there, probabilities first."""
        return tuple(name for name in (self.probabilities, self.embedding, self.margin) if name is not None)


class ModelManifest(_Frozen):
    """What goes with a model's ONNX bytes; an extractor has no labels and no probabilities."""

    format_version: Literal[1] = 1
    task: Task
    labels: tuple[Name, ...] = ()
    input: InputSpec
    outputs: OutputSpec
    opset: Annotated[int, Field(ge=7, le=64)]
    sha256: Sha256
    version: str | None = None
    metrics: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        if self.task != f"{self.input.kind}-classification":
            raise ValueError(f"task {self.task} does not take a {self.input.kind} input")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("a label is listed twice")
        if self.outputs.probabilities is None and self.labels:
            raise ValueError("labels are listed, but no output gives their probabilities")
        if self.outputs.probabilities is not None and len(self.labels) < 2:
            raise ValueError("a classifier has at least two labels")
        return self

    @property
    def is_extractor(self) -> bool:
        """Whether it gives embeddings only."""
        return self.outputs.probabilities is None
