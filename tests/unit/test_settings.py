"""Settings: read once, strictly; a misspelt one is refused with a suggestion, secrets are not shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from crony.errors import Invalid
from crony.settings import load, variables


def test_defaults_hold_no_secret() -> None:
    settings = load({})
    assert settings.namespace == "default"
    assert settings.web_host == "127.0.0.1"
    assert settings.shell is False
    for variable, about, default, secret in variables():
        assert variable.startswith("CRONY_")
        assert about
        if secret:
            assert not default


def test_values_are_read_by_their_kind() -> None:
    settings = load(
        {
            "CRONY_ETCD_ENDPOINTS": "http://a:2379, http://b:2379",
            "CRONY_NODE_LABELS": "zone=a,disk=ssd",
            "CRONY_NODE_QUEUES": "any, reports",
            "CRONY_SHELL": "on",
            "CRONY_WEB_PORT": "8500",
            "CRONY_NODE_TTL": "6",
            "CRONY_RUN_ID": "j1.1.60",
            "HOME": "/root",
        },
        namespace="test",
    )
    assert settings.etcd_endpoints == ("http://a:2379", "http://b:2379")
    assert dict(settings.node_labels) == {"zone": "a", "disk": "ssd"}
    assert settings.node_queues == ("any", "reports") and load({"CRONY_NODE_QUEUES": ""}).node_queues == ()
    assert settings.shell is True
    assert settings.web_port == 8500
    assert settings.namespace == "test"


def test_a_misspelt_setting_is_refused_with_a_suggestion() -> None:
    with pytest.raises(Invalid, match="did you mean CRONY_NAMESPACE") as caught:
        load({"CRONY_NAMESPAC": "x"})
    assert caught.value.field == "CRONY_NAMESPAC"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CRONY_WEB_PORT", "x"),
        ("CRONY_SHELL", "perhaps"),
        ("CRONY_NODE_LABELS", "zone"),
        ("CRONY_LEADER_TTL", "0"),
        ("CRONY_NODE_TTL", "1000"),
        ("CRONY_GRACE", "20"),
        ("CRONY_GRACE", "nan"),
        ("CRONY_NODE", "@any.shell"),
        ("CRONY_NODE_QUEUES", "any,a.b"),
        ("CRONY_NODE_QUEUES", "run.@any"),
        ("CRONY_LEADER_TTL", "nan"),
        ("CRONY_NODE_WEIGHT", "-1"),
        ("CRONY_ETCD_ENDPOINTS", ""),
        ("CRONY_ETCD_ENDPOINTS", "http://a,http://a"),
    ],
)
def test_bad_values_are_refused(variable: str, value: str) -> None:
    with pytest.raises(Invalid) as caught:
        load({variable: value})
    assert caught.value.field == variable


def test_secrets_come_from_files_and_are_not_shown(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text("hunter2\n")
    settings = load({"CRONY_SIGNING_KEY_FILE": str(secret)})
    assert settings.signing_key == "hunter2"
    assert "hunter2" not in repr(settings)
    with pytest.raises(Invalid, match="beside the variable itself"):
        load({"CRONY_SIGNING_KEY_FILE": str(secret), "CRONY_SIGNING_KEY": "x"})
    with pytest.raises(Invalid, match="cannot be read"):
        load({"CRONY_SIGNING_KEY_FILE": str(tmp_path / "missing")})
