"""The recipe of MLflow."""

import os
from collections.abc import AsyncIterator

import pytest_asyncio
from playwright.async_api import Browser
from recipeinstall import FromPyPI
from recipekit import TOKEN, Applications, Scene, recipe, shows

pytestmark = [*recipe]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def scene(applications: Applications) -> AsyncIterator[Scene]:
    """Serve MLflow."""
    async with applications.serve("mlflow", FromPyPI(("mlflow",))) as found:
        yield found


async def test_a_job_logs_with_a_token_and_a_person_sees_it(scene: Scene, browser: Browser) -> None:
    """A metric and a large artifact of the client arrive; the page shows the experiment."""
    (scene.directory / "model.bin").write_bytes(os.urandom(2**24))
    await scene.refuse_strangers()
    # The client finds the application's name by the gate, as it would by a proxy.
    by_gate = {"HTTP_PROXY": scene.gate_url, "MLFLOW_TRACKING_TOKEN": TOKEN}
    await scene.run("python", "train.py", variables=by_gate)
    get = (
        "import mlflow; mlflow.set_tracking_uri('" + scene.url + "');"
        "run, = mlflow.search_runs(experiment_names=['gate'], output_format='list');"
        "mlflow.artifacts.download_artifacts(run_id=run.info.run_id, dst_path='back');"
        "print(run.data.metrics)"
    )
    said = await scene.run("python", "-c", get, variables=by_gate)
    await scene.run("cmp", "model.bin", "back/model.bin")

    assert "{'accuracy': 0.875}" in said
    async with scene.tab(browser) as tab:
        await tab.goto(f"{scene.url}/#/experiments")
        await shows(tab, "gate")
        await scene.sign_out_in(tab)
