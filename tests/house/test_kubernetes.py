"""The Helm chart and the plain manifests made from it: valid, safe, and what the gate reads."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final

import kubernetes_validate  # type: ignore[import-untyped] # it has no types
import pytest
import yaml  # type: ignore[import-untyped] # its types are a package of their own
from clikit import gate_after
from gatekit import RawClient, ask, request_bytes
from kubernetes_validate import utils
from parts import LEAN_GO, missing
from processkit import END_SECONDS, gate_process
from tlskit import Authority

from tailchat_gate.config.load import load
from tailchat_gate.config.model import Settings

ROOT: Final = Path(__file__).parents[2]
CHART: Final = ROOT / "deploy" / "helm" / "tailchat-gate"
PLAIN: Final = ROOT / "deploy" / "kubernetes" / "tailchat-gate.yaml"
#: The oldest that the chart takes, one in use, and the newest whose schemas are known.
VERSIONS: Final = ("1.29", "1.33", "1.37")
#: A gate that a second signal gives as long as a busy machine may need.
_IN_NO_HURRY: Final = """
from functools import partial
from tailchat_gate.commands import serve
from tailchat_gate.serving import signals
serve.Signals = partial(signals.Signals, hurry=25.0)
"""
VALUES: Final = tuple(path.stem for path in sorted((CHART / "ci").glob("*.yaml")))
#: Kinds of others, of which Kubernetes has no schema.
FOREIGN: Final = ("monitoring.coreos.com", "gateway.networking.k8s.io", "traefik.io")

Manifest = dict[str, Any]


@cache
def helm() -> str:
    """Return the path of helm; skip the test, or fail it in CI, without it."""
    places = (os.environ.get("PATH", ""), str(Path.home() / "go" / "bin"))
    found = shutil.which("helm", path=os.pathsep.join(places))
    if found is None:
        missing("helm (go install helm.sh/helm/v3/cmd/helm@latest)")
    return found


def run_helm(*words: str) -> tuple[int, str, str]:
    """Run helm; return its code and what it wrote."""
    environ = {**os.environ, **LEAN_GO}
    done = subprocess.run(
        [helm(), *words], capture_output=True, text=True, check=False, env=environ
    )
    return done.returncode, done.stdout, done.stderr


@cache
def rendered(values: str, *more: str, version: str = VERSIONS[0]) -> str:
    """Return what the chart makes of one of its files of values, as text."""
    file = str(CHART / "ci" / f"{values}.yaml")
    # A helm that is built from its module takes itself for one of Kubernetes 1.20.
    words = ("--namespace", "default", "--kube-version", version, "--values", file, *more)
    code, out, err = run_helm("template", "gate", str(CHART), *words)
    assert code == 0, err
    return out


def manifests(text: str) -> list[Manifest]:
    """Return the manifests in a text."""
    # The safe loader, in C: the one in Python takes longer than Helm.
    return [found for found in yaml.load_all(text, yaml.CSafeLoader) if found]


def of_kind(found: Sequence[Manifest], kind: str) -> Manifest:
    """Return the one manifest of a kind."""
    (one,) = [manifest for manifest in found if manifest["kind"] == kind]
    return one


@pytest.fixture(scope="module", autouse=True)
def _schemas_are_read_once() -> Iterator[None]:
    """Keep the schemas of a version, which are megabytes of JSON, for the next manifest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "schema_contents", cache(utils.schema_contents))
        yield


def check_schemas(found: Sequence[Manifest]) -> None:
    """Check manifests against the schemas of three versions, in which no unknown key may be."""
    own = [one for one in found if not one["apiVersion"].startswith(FOREIGN)]
    assert own
    for manifest in own:
        for version in VERSIONS:
            kubernetes_validate.validate(manifest, version, strict=True)


@pytest.fixture(scope="module")
def plain() -> list[Manifest]:
    """Return the plain manifests."""
    return manifests(PLAIN.read_text(encoding="utf-8"))


def test_the_plain_manifests_are_valid(plain: list[Manifest]) -> None:
    """Each is one of Kubernetes' own kinds, for three of its versions."""
    check_schemas(plain)
    kinds = {manifest["kind"] for manifest in plain}
    wanted = {"ConfigMap", "Deployment", "Service", "NetworkPolicy", "Ingress"}
    assert kinds == {*wanted, "PersistentVolumeClaim"}


def pod(found: Sequence[Manifest]) -> Manifest:
    """Return the specification of the pod."""
    spec = of_kind(found, "Deployment")["spec"]["template"]["spec"]
    assert isinstance(spec, dict)
    return spec


def variables(found: Sequence[Manifest]) -> dict[str, str]:
    """Return the environment of the gate's container."""
    return {one["name"]: one["value"] for one in pod(found)["containers"][0]["env"]}


def test_the_pod_has_no_right_that_it_does_not_need(plain: list[Manifest]) -> None:
    """The restricted profile of Kubernetes' pod security standards, and no file it could change."""
    spec = pod(plain)
    (container,) = spec["containers"]
    security = container["securityContext"]
    assert security == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert (spec["automountServiceAccountToken"], spec["enableServiceLinks"]) == (False, False)
    writable = [one["name"] for one in container["volumeMounts"] if not one.get("readOnly")]
    assert writable == ["state"]
    assert all("subPath" not in one for one in container["volumeMounts"])
    modes = [one["secret"]["defaultMode"] for one in spec["volumes"] if "secret" in one]
    assert modes == [0o440]


def test_nothing_but_monitoring_reaches_the_admin_port(plain: list[Manifest]) -> None:
    """No Service or Ingress names it, and the policy gives it to one namespace."""
    assert [one["name"] for one in of_kind(plain, "Service")["spec"]["ports"]] == ["http"]
    public, admin = of_kind(plain, "NetworkPolicy")["spec"]["ingress"]
    assert [one["port"] for one in public["ports"]] == ["http"]
    assert [one["port"] for one in admin["ports"]] == ["admin"]
    assert admin["from"]


def test_the_examples_trust_no_range_that_everybody_is_in(plain: list[Manifest]) -> None:
    """The plain manifests trust nobody; values that name a range say who may connect."""
    assert "TAILCHAT_GATE_SERVER__TRUSTED_PROXIES" not in variables(plain)
    for values in VALUES:
        given = yaml.safe_load((CHART / "ci" / f"{values}.yaml").read_text(encoding="utf-8"))
        policy = given.get("networkPolicy", {})
        assert not given.get("trustedProxies") or policy.get("from"), values


def test_no_template_leads_past_tls() -> None:
    """Where the gate has TLS the plain listener is on loopback, and the plain port redirects."""
    template = (CHART / "templates" / "deployment.yaml").read_text(encoding="utf-8")
    _, _, tls = template.partition("{{- if .Values.tls.secretName }}")
    with_tls, _, without = tls.partition("{{- else }}")
    assert '"127.0.0.1:4180"' in with_tls
    assert "REDIRECT_LISTEN" in with_tls
    assert '"0.0.0.0:4180"' in without
    assert template.count("SERVER__LISTEN") == len(("with TLS", "without"))


def test_a_stop_has_the_time_that_it_takes(plain: list[Manifest]) -> None:
    """The kubelet's grace is longer than the drain, the wait for requests, and the gate's end."""
    seconds = {name: value.rstrip("s") for name, value in variables(plain).items()}
    drain = int(seconds["TAILCHAT_GATE_SERVER__DRAIN_DELAY"])
    shutdown = int(seconds["TAILCHAT_GATE_SERVER__SHUTDOWN_TIMEOUT"])
    assert pod(plain)["terminationGracePeriodSeconds"] > drain + shutdown + 8
    probe = pod(plain)["containers"][0]["readinessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] < drain


def settings_of(found: Sequence[Manifest], folder: Path) -> Settings:
    """Return what the gate makes of a ConfigMap and the environment of the Deployment."""
    config = folder / "config.toml"
    config.write_text(of_kind(found, "ConfigMap")["data"]["config.toml"], encoding="utf-8")
    environ = variables(found)
    for name in environ:
        if name.endswith("SECRET_FILE"):
            secret = folder / name
            secret.write_text("q8Zr1XvK3mTn7PbY5wLd2HcJ9sGf4RtE6uAo0iQe", encoding="utf-8")
            secret.chmod(0o440)
            environ[name] = str(secret)
    if "TAILCHAT_GATE_SERVER__TLS" in environ:
        authority = Authority.create(folder)
        names = ("wiki.example.com",)
        issued = authority.issue("gate.example.com", ends=timedelta(days=90), others=names)
        text = environ["TAILCHAT_GATE_SERVER__TLS"]
        for name, file in (("tls.crt", issued.certificate), ("tls.key", issued.key)):
            text = text.replace(f"/run/tls/{name}", str(file))
        environ["TAILCHAT_GATE_SERVER__TLS"] = text
    environ["TAILCHAT_GATE_TAILCHAT__CLIENT_ID"] = "tc_1"
    loaded = load(config, environ)
    # The NetworkPolicy keeps others from it, which the gate cannot see.
    (warning,) = loaded.warnings
    assert warning.startswith("server.admin_listen: everybody who reaches 0.0.0.0:4181, ")
    return loaded.settings


def test_the_gate_reads_its_configuration(plain: list[Manifest], tmp_path: Path) -> None:
    """The text and the environment are one good configuration, with the ports of the probes."""
    server = settings_of(plain, tmp_path).server
    (container,) = pod(plain)["containers"]
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    assert server.listen == (f"0.0.0.0:{ports['http']}",)
    assert server.admin_listen == f"0.0.0.0:{ports['admin']}"
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == "admin"


async def until_probed(port: int, request: bytes, status: int) -> None:
    """Ask as the kubelet does, until a probe has this status."""
    async with asyncio.timeout(END_SECONDS):
        while True:
            if (await ask(port, request)).status == status:
                return
            await asyncio.sleep(0.01)


async def test_a_kubelet_and_a_late_node_lose_no_request(
    plain: list[Manifest], tmp_path: Path
) -> None:
    """After SIGTERM the probe fails at once, and clients that come late are still served."""
    probe = pod(plain)["containers"][0]["readinessProbe"]["httpGet"]["path"]
    request = request_bytes(probe, host="10.0.0.1", Connection="close")
    command = gate_after(_IN_NO_HURRY)
    async with gate_process(tmp_path, server={"drain_delay": "5m"}, command=command) as gate:
        await until_probed(gate.admin_port, request, 200)
        async with RawClient.connect(gate.port) as kept:
            kept.send(request_bytes("/ping"))
            assert (await kept.response()).status == 200
            gate.process.terminate()
            await until_probed(gate.admin_port, request, 503)
            # The node still leads new connections here, and uses those that it has.
            for _ in range(50):
                assert (await gate.ping()).status == 200
            kept.send(request_bytes("/ping"))
            response = await kept.response()
            assert (response.status, response.value("Connection")) == (200, "close")
        # The grace need not be waited for: a second signal ends it.
        gate.process.terminate()
        async with asyncio.timeout(END_SECONDS):
            assert await gate.process.wait() == 0


# The templates, where helm is installed.


def test_the_chart_has_no_fault_that_helm_sees() -> None:
    """Helm's own check, with each file of values."""
    for values in VALUES:
        file = str(CHART / "ci" / f"{values}.yaml")
        words = ("--strict", "--kube-version", VERSIONS[0], "--values", file)
        code, out, err = run_helm("lint", str(CHART), *words)
        assert code == 0, out + err


def test_the_plain_manifests_are_those_of_the_chart() -> None:
    """They are made again with one command, which their first lines tell."""
    text = PLAIN.read_text(encoding="utf-8")
    head, _, body = text.partition("---\n")
    assert "helm template gate deploy/helm/tailchat-gate" in head
    assert manifests(body) == manifests(rendered("plain"))


@pytest.mark.parametrize("values", VALUES)
def test_what_the_chart_makes_is_valid(values: str, tmp_path: Path) -> None:
    """For three versions of Kubernetes, and as a configuration of the gate."""
    for kind in ("IngressRoute", "HTTPRoute") if values == "forward-auth" else ("",):
        more = ("--set", f"forwardAuth.kind={kind}") if kind else ()
        for version in VERSIONS:
            check_schemas(manifests(rendered(values, *more, version=version)))
    assert settings_of(manifests(rendered(values)), tmp_path).route[0].name == "wiki"


def test_the_plain_port_only_redirects_where_the_gate_has_tls(tmp_path: Path) -> None:
    """No port of the service leads to the plain listener, which stays on the pod's loopback."""
    found = manifests(rendered("tls"))
    server = settings_of(found, tmp_path).server
    (container,) = pod(found)["containers"]
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    assert server.listen == ("127.0.0.1:4180",)
    assert server.redirect_listen == (f"0.0.0.0:{ports['http']}",)
    assert server.https_listen == (f"0.0.0.0:{ports['https']}",)
    targets = [one["targetPort"] for one in of_kind(found, "Service")["spec"]["ports"]]
    assert targets == ["http", "https"]


@pytest.mark.parametrize(
    "set_",
    [
        "trustedProxies={10.42.0.7,10.42.0.8/32,fd00::1/128}",
        "trustedProxies={10.42.0.0/16},networkPolicy.from[0].podSelector.matchLabels.app=traefik",
    ],
)
def test_single_proxies_and_a_guarded_range_are_trusted(set_: str) -> None:
    """An address is one pod's, and the policy lets none but the named connect."""
    names = variables(manifests(rendered("plain", "--set", set_)))
    assert names["TAILCHAT_GATE_SERVER__TRUSTED_PROXIES"].startswith("10.42.0.")


def test_a_range_is_not_trusted_where_no_policy_is() -> None:
    """A policy that is switched off names nobody."""
    file = str(CHART / "ci" / "forward-auth.yaml")
    words = (
        "--kube-version",
        VERSIONS[0],
        "--values",
        file,
        "--set",
        "networkPolicy.enabled=false",
    )
    code, _, err = run_helm("template", "gate", str(CHART), *words)
    assert code != 0
    assert "networkPolicy.from" in err


def test_several_pods_are_kept_apart_and_alive() -> None:
    """They scale on requests, one goes at a time, and the autoscaler alone says how many."""
    found = manifests(rendered("several"))
    assert "replicas" not in of_kind(found, "Deployment")["spec"]
    assert of_kind(found, "Deployment")["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    metrics = of_kind(found, "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert metrics[0]["pods"]["metric"]["name"] == "gate_requests_per_second"
    assert of_kind(found, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    labels = of_kind(found, "ServiceMonitor")["spec"]["selector"]["matchLabels"]
    (service,) = [
        one
        for one in found
        if one["kind"] == "Service" and labels.items() <= one["metadata"]["labels"].items()
    ]
    assert [port["name"] for port in service["spec"]["ports"]] == ["admin"]
    assert of_kind(found, "HTTPRoute")["spec"]["hostnames"][0] == "gate.example.com"


@pytest.mark.parametrize(
    ("set_", "said"),
    [
        ("replicas=2", "sharedState"),
        ("autoscaling.enabled=true", "sharedState"),
        ("replicas=2,sharedState=true", "persistence.enabled"),
        ("secret.name=", "secret.name"),
        ("config=", "config"),
        ("ingress.hosts=null", "ingress.hosts"),
        ("gateway.enabled=true", "gateway.parentRefs"),
        ("forwardAuth.kind=Nginx", "forwardAuth.kind"),
        ("forwardAuth.kind=IngressRoute", "forwardAuth.tools"),
        ("tls.secretName=gate-tls", "tls.secretName"),
        ("trustedProxies={10.42.0.0/16}", "networkPolicy.from"),
        ("trustedProxies={10.0.0.1,fd00::/8}", "networkPolicy.from"),
        ("trustedProxies={fd00::/32}", "networkPolicy.from"),
        ("trustedProxies={10.42.0.0/16\\,10.0.0.1/32}", "networkPolicy.from"),
        ('config=server.trusted_proxies = ["10.42.0.0/16"]', "networkPolicy.from"),
    ],
)
def test_what_would_not_work_is_not_rendered(set_: str, said: str) -> None:
    """The message says which value it is about."""
    file = str(CHART / "ci" / "plain.yaml")
    words = ("--kube-version", VERSIONS[0], "--values", file, "--set", set_)
    code, _, err = run_helm("template", "gate", str(CHART), *words)
    assert code != 0
    assert said in err


def middlewares(found: Sequence[Manifest]) -> dict[str, Manifest]:
    """Return Traefik's middlewares by their names without the release's."""
    return {
        one["metadata"]["name"].removeprefix("gate-tailchat-gate-"): one["spec"]
        for one in found
        if one["kind"] == "Middleware"
    }


def test_forward_auth_is_what_the_tests_attack() -> None:
    """The middlewares and rules are those of the file that a real Traefik is tested with."""
    text = (ROOT / "deploy/traefik/dynamic.yaml").read_text(encoding="utf-8")
    tested = yaml.safe_load(text)["http"]
    own = {"tailchat": "ask"}
    found = manifests(rendered("forward-auth"))
    made = middlewares(found)
    address = "http://gate-tailchat-gate.default.svc:80/oauth2/auth"
    assert made["ask"]["forwardAuth"].pop("address") == address
    tested["middlewares"]["tailchat"]["forwardAuth"].pop("address")
    assert made == {own.get(name, name): one for name, one in tested["middlewares"].items()}

    def names(middlewares: Sequence[str]) -> list[str]:
        return [own.get(name, name) for name in middlewares]

    wanted = [
        (router["rule"], names(router.get("middlewares", ())), router.get("priority"))
        for router in tested["routers"].values()
    ]
    routes = [
        (
            route["match"],
            [m["name"].removeprefix("gate-tailchat-gate-") for m in route.get("middlewares", ())],
            route.get("priority"),
        )
        for route in of_kind(found, "IngressRoute")["spec"]["routes"]
    ]
    assert routes == wanted


def filters(rule: Mapping[str, Any]) -> list[str]:
    """Return the names of Traefik's middlewares that a rule of an HTTPRoute has."""
    names = [one["extensionRef"]["name"] for one in rule.get("filters", ())]
    return [name.removeprefix("gate-tailchat-gate-") for name in names]


def tool_rules() -> Iterator[tuple[str, bool, list[str], bool]]:
    """Yield path, whether a header must match, filters and a backend, of the tool's HTTPRoute."""
    found = manifests(rendered("forward-auth", "--set", "forwardAuth.kind=HTTPRoute"))
    (route,) = [one for one in found if one["metadata"]["name"].endswith("-wiki")]
    for rule in route["spec"]["rules"]:
        (match,) = rule["matches"]
        yield match["path"]["value"], "headers" in match, filters(rule), "backendRefs" in rule


def test_forward_auth_by_the_gateway_api_has_the_same_steps() -> None:
    """The question leads nowhere, the gate's pages are not asked about, and all else is."""
    asked = ["wiki-name", "{}", "ask", "wiki-told"]
    assert list(tool_rules()) == [
        ("/oauth2/auth", False, [], False),
        ("/oauth2", False, ["wiki-name"], True),
        ("/", True, [name.format("websocket") for name in asked], True),
        ("/", False, [name.format("no-switch") for name in asked], True),
    ]
