"""The examples and the README's own code run, as a user would run them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cc
ROOT = Path(__file__).resolve().parent.parent


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def run(*command, cwd):
    command = [*map(str, command)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_the_digits_are_learned_deployed_and_predicted_alike(tmp_path):
    result = run(sys.executable, ROOT / "examples" / "digits.py", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert float(re.search(r"accuracy: ([\d.]+)%", result.stdout)[1]) >= 96


def test_the_convolutional_network_learns_the_digits(tmp_path):
    result = run(sys.executable, ROOT / "examples" / "digits_cnn.py", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert float(re.search(r"accuracy: ([\d.]+)%", result.stdout)[1]) >= 98


def test_a_line_is_fitted(tmp_path):
    result = run(sys.executable, ROOT / "examples" / "line.py", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    slope, intercept = map(float, re.search(r"y = ([\d.]+)\*x \+ ([\d.]+)", result.stdout).groups())
    assert abs(slope - 4) < 0.05
    assert abs(intercept - 2) < 0.05


def test_noisy_xor_is_learned_through_recorded_statistics(tmp_path):
    result = run(sys.executable, ROOT / "examples" / "xor.py", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    before, after = map(float, re.search(r"([\d.]+)% -> ([\d.]+)%", result.stdout).groups())
    assert before < 60
    assert after >= 93


def test_a_layer_with_its_own_derivative_learns_what_rounding_loses(tmp_path):
    result = run(sys.executable, ROOT / "examples" / "custom_layer.py", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    full, trained, rounded = map(float, re.findall(r": ([\d.]+)%", result.stdout))
    assert full >= 96
    assert trained >= 93
    assert rounded < trained - 1


def test_newton_s_method_arrives_where_gradient_descent_does_not(tmp_path):
    result = run(sys.executable, ROOT / "examples" / "newton.py", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert int(re.search(r"arrives in (\d+) steps", result.stdout)[1]) <= 8
    assert float(re.search(r"still ([\d.]+) away", result.stdout)[1]) > 0.1


def test_the_longest_gradients_are_of_wrong_labels(tmp_path):
    result = run(sys.executable, ROOT / "examples" / "per_example_gradients.py", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    found, wrong = map(int, re.search(r"among them: (\d+) of (\d+)", result.stdout).groups())
    assert found >= 0.8 * wrong


def test_a_recurrent_network_recites_its_rhyme(tmp_path):
    result = run(sys.executable, ROOT / "examples" / "char_rnn.py", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "lines of the rhyme: 4 of 4" in result.stdout


def test_a_learned_field_is_followed_in_as_many_steps_as_the_error_asks_for(tmp_path):
    result = run(sys.executable, ROOT / "examples" / "neural_ode.py", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    few, many = map(int, re.findall(r": (\d+) steps", result.stdout))
    assert few < many
    assert float(re.search(r"the truth: ([\d.]+)", result.stdout)[1]) < 0.1


def test_a_small_gpt_learns_more_than_frequencies_of_letters(tmp_path):
    result = run(sys.executable, ROOT / "examples" / "small_gpt.py", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    by_frequencies = float(re.search(r"frequencies alone: ([\d.]+)", result.stdout)[1])
    *_, loss = map(float, re.findall(r"loss ([\d.]+)\n", result.stdout))
    assert loss < 0.75 * by_frequencies
    assert len(result.stdout.split("Return a")[1]) > 50


@pytest.mark.parametrize("page", ["transformations", "control-flow"])
def test_the_code_of_the_docs_compiles(page, tmp_path):
    text = (ROOT / "docs" / f"{page}.md").read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    (tmp_path / "page.py").write_text(code)
    fluxc = (sys.executable, "-m", "fluxc.compiler")
    compiled = run(*fluxc, "compile", "page.py", "-o", "build/page", cwd=tmp_path)
    assert compiled.returncode == 0, compiled.stderr


def test_the_page_on_optimisers_trains_stops_and_goes_on(tmp_path):
    text = (ROOT / "docs" / "optimisers.md").read_text()
    *model, use = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "page.py").write_text("\n".join(model))
    (tmp_path / "use.py").write_text(use)
    fluxc = (sys.executable, "-m", "fluxc.compiler")
    compiled = run(*fluxc, "compile", "page.py", "-o", "build/page", cwd=tmp_path)
    assert compiled.returncode == 0, compiled.stderr
    (tmp_path / "page.py").unlink()
    used = run(sys.executable, "use.py", cwd=tmp_path)
    assert used.returncode == 0, used.stderr
    before, after = map(float, re.search(r"loss ([\d.]+) -> ([\d.]+)", used.stdout).groups())
    assert after < before


def test_the_readme_s_model_compiles_trains_and_predicts(tmp_path):
    model, use = blocks("python")
    (tmp_path / "model.py").write_text(model)
    (tmp_path / "use.py").write_text(use)
    fluxc = (sys.executable, "-m", "fluxc.compiler")
    compiled = run(*fluxc, "compile", "model.py", "-o", "build/model", cwd=tmp_path)
    assert compiled.returncode == 0, compiled.stderr
    used = run(sys.executable, "use.py", cwd=tmp_path)
    assert used.returncode == 0, used.stderr
    before, after = map(float, re.search(r"loss ([\d.]+) -> ([\d.]+)", used.stdout).groups())
    assert after < before
    assert "(32, 10)" in used.stdout
