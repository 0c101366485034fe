import pytest
import torch
from safetensors.torch import save
from torch import nn

from core.errors import WeightsError, WeightsNotFoundError
from models._release import load_weights, read_channel, read_release
from tests.records import make_config, write_folder


def test_an_empty_folder_is_no_release(tmp_path):
    with pytest.raises(WeightsNotFoundError, match=r"config\.json is missing"):
        read_release(tmp_path)


def test_a_config_of_something_else_names_what_is_wrong_with_it(tmp_path):
    (tmp_path / "config.json").write_text('{"name": "grace"}')
    with pytest.raises(WeightsError, match="is not a Rollmark release: title: Field required"):
        read_release(tmp_path)


def test_a_config_that_names_its_weights_by_a_path_is_no_release(tmp_path):
    config = write_folder(tmp_path / "r", save({"weight": torch.zeros(1, 2)}))
    outside = config.model_copy(update={"weights_file": "../r/model.safetensors"})
    (tmp_path / "r" / "config.json").write_text(outside.model_dump_json())
    with pytest.raises(WeightsError, match="is not a Rollmark release: weights_file: String"):
        read_release(tmp_path / "r")


@pytest.mark.parametrize("file", ["config.json", "channel.json"])
def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path, file):
    (tmp_path / file).mkdir()
    read = read_release if file == "config.json" else read_channel
    with pytest.raises(WeightsError, match=rf"{file} cannot be read: Is a directory\.$"):
        read(tmp_path)
    too_long = tmp_path / ("x" * 300)
    with pytest.raises(WeightsError, match=rf"{file} cannot be read: File name too long\.$"):
        read(too_long)


def test_half_precision_weights_fill_a_single_precision_network(tmp_path):
    state = {"weight": torch.tensor([[0.5, -2.0]]).half(), "bias": torch.tensor([1.0]).half()}
    config = write_folder(tmp_path / "r", save(state))
    network = nn.Linear(2, 1)
    load_weights(network, tmp_path / "r", config)
    assert network.weight.dtype == torch.float32
    assert network(torch.tensor([[2.0, 1.0]])).item() == 0.0  # 0.5 * 2 - 2 * 1 + 1


def test_one_changed_byte_is_noticed(tmp_path):
    config = write_folder(tmp_path / "r", save({"weight": torch.zeros(1, 2)}))
    path = tmp_path / "r" / config.weights_file
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(WeightsError, match="fetch the release again"):
        load_weights(nn.Linear(2, 1), tmp_path / "r", config)


def test_weights_of_another_network_do_not_fit(tmp_path):
    config = write_folder(tmp_path / "r", save({"other": torch.zeros(1)}))
    with pytest.raises(WeightsError, match="do not fit grace"):
        load_weights(nn.Linear(2, 1), tmp_path / "r", config)


def test_a_pickle_under_the_name_of_the_weights_is_refused_and_never_run(tmp_path):
    canary = tmp_path / "canary"
    payload = b"cposix\nsystem\n(S'touch " + str(canary).encode() + b"'\ntR."
    config = write_folder(tmp_path / "r", payload)
    with pytest.raises(WeightsError, match="do not fit"):
        load_weights(nn.Linear(2, 1), tmp_path / "r", config)
    assert not canary.exists()


def test_the_revision_is_the_beginning_of_the_hash_of_the_weights():
    # sha256(b"weights") begins with this
    assert make_config(b"weights").revision == "9a129038d9a0"
