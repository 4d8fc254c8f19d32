"""`amqp-lite deploy` on a board that has everything already."""

import json


def test_deploying_again_copies_nothing(board, settings, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(settings))
    span = board.span()
    said = board.tool("deploy", "--config", config, "--no-reset")
    span.end()
    assert "files are there already" in said, said
    assert span.erases == 0 and span.programs < 8, "only what the broker writes when it ends"


def test_a_change_is_one_file_and_the_broker_is_back(board, settings, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(dict(settings, device="edge-2")))
    said = board.tool("deploy", "--config", config)
    assert "\n1 of " in said and "copied and verified" in said, said
    assert board.status()["device"] == "edge-2"
