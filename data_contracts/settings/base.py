"""What all settings share. They are part of an artifact's key, so nothing here may depend on the machine."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Protocol = Literal["clean", "released"]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Settings(BaseModel):
    """Base class of settings. An unknown key is an error, and so is a number that is not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def keyed(self) -> dict[str, Any]:
        """The settings that enter an artifact's key, as plain JSON values."""
        return self.model_dump(mode="json")
