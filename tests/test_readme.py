"""The README's Python, run as it stands; every link between the pages leads somewhere."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from PIL import Image
from sklearn.datasets import load_digits

from distdiff.classification.training import ClassifierTrainer

BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]*)(#[^)\s]*)?\)")
PROJECT_PAGES = ("CHANGELOG.md", "CONTRIBUTING.md")
NAMED = re.compile(r"`((?:conf|distdiff|experiments|tests)/[^\s`<>*]*)`")  # a path in a code span
PAGES = [page for page in ROOT.rglob("*.md") if not {".venv", "outputs", "assets"} & set(page.relative_to(ROOT).parts)]


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Thirty scanned digits in class folders, in the working directory."""
    digits = load_digits()
    for number in range(30):
        folder = tmp_path / "pictures" / str(digits.target[number])
        folder.mkdir(parents=True, exist_ok=True)
        pixels = (digits.images[number] / 16 * 255).astype("uint8")
        Image.fromarray(pixels).resize((32, 32)).save(folder / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_readmes_python_runs_and_trains_one_guide(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []
    fit = ClassifierTrainer._fit
    monkeypatch.setattr(ClassifierTrainer, "_fit", lambda *given: trained.append(given) or fit(*given))
    pages = (ROOT / "README.md", ROOT / "conf" / "guidance" / "README.md")
    blocks = [block for page in pages for block in BLOCK.findall(page.read_text(encoding="utf-8"))]
    assert len(blocks) == 3
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    for name in ("new.png", "mine.png"):
        with Image.open(pictures / name) as image:
            assert image.size == (32, 32)
    assert len(names["new"]) == 3
    assert set(names["new"][0].info) >= {"energy_before", "energy_after", "group", "gradient_finite"}
    lines = [line for line in blocks[0].splitlines() if line.strip()]
    assert len(lines) <= 10, "ten lines were promised"
    assert len(trained) == 1
    names["distdiff"].train_guide(names["images"], steps=100)  # as another notebook would, later
    assert len(trained) == 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_what_is_there(page: Path) -> None:
    for place, heading in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in place:
            continue
        target = page.parent / place if place else page
        assert target.exists(), place
        if heading:
            titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading[1:] in {title.lower().replace(" ", "-") for title in titles}, heading


@pytest.mark.parametrize("page", PROJECT_PAGES)
def test_paths_that_the_project_pages_name_are_there(page: str) -> None:
    named = NAMED.findall((ROOT / page).read_text(encoding="utf-8"))
    assert named or page != "CONTRIBUTING.md"
    for place in named:
        assert (ROOT / place).exists(), place


def test_contributing_names_every_group_that_takes_options_of_ones_own() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = (ROOT / "distdiff" / "README.md").read_text(encoding="utf-8").split("## To add something")[1]
    for group in re.findall(r"`conf/(\w+)`", table):
        assert f"`conf/{group}/`" in text, group


def test_the_citation_names_the_software_the_paper_and_the_version_of_the_package() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert cited["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= cited.keys()  # what the format requires
    assert cited["version"] == project["version"]
    assert cited["license"] == project["license"]
    paper = cited["preferred-citation"]
    assert {"type", "title", "authors"} <= paper.keys()
    assert paper["year"] == 2024
    assert "2403.06741" in paper["url"]
    assert [author["family-names"] for author in paper["authors"]][::7] == ["Zhu", "Wang"]


def test_the_changelog_has_the_packages_version_and_what_came_since() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    assert any(re.fullmatch(rf"\[{re.escape(project['version'])}\] - \d{{4}}-\d\d-\d\d", each) for each in headings)


def test_the_licence_is_the_whole_apache_licence() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert text.lstrip().startswith("Apache License")
    assert "END OF TERMS AND CONDITIONS" in text
    assert all(f"   {number}. " in text for number in range(1, 10))
