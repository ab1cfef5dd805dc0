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


def printed(example, cwd):
    """What an example prints."""
    result = run(sys.executable, ROOT / "examples" / f"{example}.py", cwd=cwd)
    assert result.returncode == 0, result.stderr
    return result.stdout


def run(*command, cwd):
    command = [*map(str, command)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_the_digits_are_learned_deployed_and_predicted_alike(tmp_path):
    text = printed("digits", tmp_path)
    assert float(re.search(r"accuracy: ([\d.]+)%", text)[1]) >= 96


def test_every_example_is_run():
    """An example that no test names may say anything."""
    text = Path(__file__).read_text()
    examples = {p.stem for p in (ROOT / "examples").glob("*.py")}
    assert len(examples) > 20
    assert {e for e in examples if f'printed("{e}"' not in text} == set()


def test_the_convolutional_network_learns_the_digits(tmp_path):
    text = printed("digits_cnn", tmp_path)
    assert float(re.search(r"accuracy: ([\d.]+)%", text)[1]) >= 98


def test_lenet_learns_the_digits(tmp_path):
    text = printed("lenet", tmp_path)
    assert float(re.search(r"accuracy: ([\d.]+)%", text)[1]) >= 97


def test_a_line_is_fitted(tmp_path):
    text = printed("line", tmp_path)
    slope, intercept = map(float, re.search(r"y = ([\d.]+)\*x \+ ([\d.]+)", text).groups())
    assert abs(slope - 4) < 0.05
    assert abs(intercept - 2) < 0.05


def test_noisy_xor_is_learned_through_recorded_statistics(tmp_path):
    text = printed("xor", tmp_path)
    before, after = map(float, re.search(r"([\d.]+)% -> ([\d.]+)%", text).groups())
    assert before < 60
    assert after >= 93


def test_a_layer_with_its_own_derivative_learns_what_rounding_loses(tmp_path):
    text = printed("custom_layer", tmp_path)
    full, trained, rounded = map(float, re.findall(r": ([\d.]+)%", text))
    assert full >= 96
    assert trained >= 93
    assert rounded < trained - 1


def test_newton_s_method_arrives_where_gradient_descent_does_not(tmp_path):
    text = printed("newton", tmp_path)
    assert int(re.search(r"arrives in (\d+) steps", text)[1]) <= 8
    assert float(re.search(r"still ([\d.]+) away", text)[1]) > 0.1


def test_the_longest_gradients_are_of_wrong_labels(tmp_path):
    text = printed("per_example_gradients", tmp_path)
    found, wrong = map(int, re.search(r"among them: (\d+) of (\d+)", text).groups())
    assert found >= 0.8 * wrong


def test_a_recurrent_network_recites_its_rhyme(tmp_path):
    text = printed("char_rnn", tmp_path)
    assert "lines of the rhyme: 4 of 4" in text


def test_a_learned_field_is_followed_in_as_many_steps_as_the_error_asks_for(tmp_path):
    text = printed("neural_ode", tmp_path)
    few, many = map(int, re.findall(r": (\d+) steps", text))
    assert few < many
    assert float(re.search(r"the truth: ([\d.]+)", text)[1]) < 0.1
    first, *_, last = map(float, re.findall(r"loss ([\d.]+)", text))
    assert last < first / 100


def test_a_small_gpt_learns_more_than_frequencies_of_letters(tmp_path):
    text = printed("small_gpt", tmp_path)
    by_frequencies = float(re.search(r"frequencies alone: ([\d.]+)", text)[1])
    *_, loss = map(float, re.findall(r"loss ([\d.]+)\n", text))
    assert loss < 0.75 * by_frequencies
    assert len(text.split("Return a")[1]) > 50


def test_two_lstms_write_words_of_the_docstrings(tmp_path):
    text = printed("char_lstm", tmp_path)
    by_frequencies = float(re.search(r"frequencies alone: ([\d.]+)", text)[1])
    first, last = map(float, re.findall(r"epoch \d: loss ([\d.]+)", text))
    assert last < first < by_frequencies
    assert last < 0.65 * by_frequencies
    known, words = map(int, re.search(r"have too: (\d+) of (\d+)", text).groups())
    assert known >= 0.4 * words


def test_a_tagger_needs_both_sides(tmp_path):
    both, one = map(float, re.findall(r"way\w*: ([\d.]+)%", printed("tagger", tmp_path)))
    assert both >= 97
    assert one < 90


def test_words_are_read_from_recordings_without_an_alignment(tmp_path):
    text = printed("ctc", tmp_path)
    assert float(re.search(r"without a mistake: ([\d.]+)%", text)[1]) >= 90
    first, last = map(
        float, re.search(r"first epoch: ([\d.]+), of the last: ([\d.]+)", text).groups()
    )
    assert last < 0.1 * first


def test_points_out_of_noise_lie_on_the_moons_and_cover_them(tmp_path):
    text = printed("diffusion", tmp_path)
    near, covered = map(float, re.search(r"([\d.]+)% lie .* cover ([\d.]+)%", text).groups())
    assert near >= 90
    assert covered >= 95


def test_a_network_finds_the_heat_in_a_rod_by_its_equation(tmp_path):
    text = printed("physics", tmp_path)
    assert float(re.search(r"exact solution: ([\d.]+)", text)[1]) < 0.02


def test_a_variational_autoencoder_tells_images_and_draws_new_ones(tmp_path):
    text = printed("vae", tmp_path)
    first, later, last = map(float, re.search(r"loss: (.*) -> (.*) -> (.*)", text).groups())
    assert first > later > last
    told, mean = map(float, re.search(r"images: ([\d.]+), .* image: ([\d.]+)", text).groups())
    assert told < 0.6 * mean
    drawn, unseen, noise = map(float, re.findall(r"(?:digit|noise): ([\d.]+)", text))
    assert drawn < (unseen + noise) / 2


def test_two_convolutional_networks_train_each_other(tmp_path):
    text = printed("dcgan", tmp_path)
    assert 40 < float(re.search(r"right .*: (\d+)%", text)[1]) < 95
    numbers = re.search(r"digit: ([\d.]+) -> ([\d.]+), from noise: ([\d.]+)", text).groups()
    before, after, noise = map(float, numbers)
    assert after < 0.95 * noise < before


def test_a_penalty_on_gradients_makes_a_critic_measure_distances(tmp_path):
    text = printed("wgan_gp", tmp_path)
    numbers = re.search(r"finds ([\d.]+) .* slope of ([\d.]+); .* with (\d+)", text).groups()
    found, slope, without = map(float, numbers)
    assert abs(found - 1.5) < 0.2
    assert abs(slope - 1) < 0.2
    assert without > 10
    before, after = map(float, re.search(r"ring: ([\d.]+) -> ([\d.]+)", text).groups())
    assert after < before / 3
    assert float(re.search(r"at least ([\d.]+)%", text)[1]) > 3


def test_a_u_net_beats_the_best_blur_and_threshold(tmp_path):
    text = printed("unet", tmp_path)
    net, by_hand = map(float, re.findall(r"([\d.]+)%", text))
    assert net > by_hand + 15


def test_a_spatial_transformer_finds_the_digits(tmp_path):
    text = printed("spatial_transformer", tmp_path)
    plain, looking = map(float, re.findall(r"([\d.]+)%", text))
    assert looking > plain + 10
    before, after = map(float, re.search(r"place: ([\d.]+) -> ([\d.]+)", text).groups())
    assert after < 0.7 * before


def test_a_siamese_network_tells_like_pairs_from_unlike_ones(tmp_path):
    text = printed("siamese", tmp_path)
    like, unlike = map(float, re.findall(r"([\d.]+)(?: apart|\n)", text)[:2])
    assert unlike > 2 * like
    network, pixels = map(float, re.findall(r"([\d.]+)%", text))
    assert network >= 95
    assert network > pixels


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
