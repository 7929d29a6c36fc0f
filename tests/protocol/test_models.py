# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
import pytest
from pydantic import TypeAdapter, ValidationError

from helexa.protocol.codec import pack, unpack
from helexa.protocol.messages.models import ModelConfig, ModelId, ModelPolicy

MODEL_ID = TypeAdapter(ModelId)


@pytest.mark.accepts("PR-1")
@pytest.mark.parametrize("name", ["helexa-tiny", "org/Model-7B:q4", "模型 🦙", "a.b*c>d", " "])
def test_a_model_id_is_any_text(name: str) -> None:
    read = MODEL_ID.validate_python(name)
    assert read == name
    assert MODEL_ID.dump_python(read) == name
    assert MODEL_ID.validate_python({"0": name}) == read


@pytest.mark.accepts("PR-1")
def test_model_ids_are_equal_by_name_and_keep_their_metadata() -> None:
    tagged = MODEL_ID.validate_python({"0": "m", "metadata": {"quant": "q8_0"}})
    assert tagged == ModelId("m")
    assert hash(tagged) == hash(ModelId("m"))
    assert tagged.metadata == {"quant": "q8_0"}
    assert MODEL_ID.validate_python(MODEL_ID.dump_python(tagged)).metadata == {"quant": "q8_0"}


@pytest.mark.accepts("PR-1")
@pytest.mark.parametrize("value", ["", "x" * 256, 7, None, {"1": "x"}, ["x"]])
def test_what_is_no_model_id_is_refused(value: object) -> None:
    with pytest.raises(ValidationError):
        MODEL_ID.validate_python(value)


@pytest.mark.accepts("PR-4")
def test_a_configuration_with_an_unknown_kind_travels() -> None:
    sent = ModelConfig(model=ModelId("m"), backend_kind="of_tomorrow", args=("--fast",))
    assert unpack(ModelConfig, pack(sent)) == sent


def test_impossible_policies_are_refused() -> None:
    with pytest.raises(ValidationError):
        ModelPolicy(min_replicas=-1)
