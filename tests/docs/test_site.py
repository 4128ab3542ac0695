"""The pages that the site makes from the code: complete, and said once. Sphinx itself runs in ``make docs``."""

import re
import sys
import tomllib
from fnmatch import fnmatch
from typing import Any

import pytest

from smalti.assembly.recipe import shipped
from smalti.evaluation.protocol import shipped as shipped_protocols
from smalti.registry import Part
from tests.docs.pages import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The generated pages: name -> text."""
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import _ext
    finally:
        sys.path.remove(str(ROOT / "docs"))
    folder = tmp_path_factory.mktemp("site") / "reference"
    folder.mkdir()
    (folder / "stale.rst").write_text("of an earlier build")
    _ext.write_pages(folder)
    return {str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in folder.rglob("*.*")}


def test_each_part_has_a_page(site: dict[str, str]) -> None:
    from _ext.parts import chapter, kinds, members

    wanted = {f"parts/{chapter(key.split('/')[0])}/{key.split('/')[1]}.rst" for key in members()}
    found = {name for name in site if name.startswith("parts/") and name.count("/") == 2 and "index" not in name}
    assert found == wanted
    assert len(wanted) > 100
    assert {"loss", "quantizer", "bottleneck", "model", "discriminator", "metric", "extractor", "data source"} <= set(
        kinds()
    )


def test_every_part_of_the_registry_is_on_exactly_one_page(site: dict[str, str]) -> None:
    from _ext.parts import registered

    text = "\n".join(site.values())
    for cls in registered():
        place = f".. autoclass:: {cls.__module__}.{cls.__qualname__}\n"
        assert text.count(place) == 1, place
        assert issubclass(cls, Part)


def test_recipes_protocols_and_verbs_have_pages(site: dict[str, str]) -> None:
    assert {f"recipes/{name}.rst" for name in shipped()} <= set(site)
    assert {f"protocols/{name}.rst" for name in shipped_protocols()} <= set(site)
    for verb in ("smalti train", "smalti recipes check", "smalti bench step"):
        assert f"{verb}\n{'-' * len(verb)}\n" in site["cli.rst"]


def test_pages_of_an_earlier_build_are_removed(site: dict[str, str]) -> None:
    assert "stale.rst" not in site


def test_options_have_type_default_and_meaning(site: dict[str, str]) -> None:
    from _ext.parts import options_table

    from smalti.quantizers.nearest import Nearest

    rows = re.split(r"\n   \* - ", options_table(Nearest))
    size = next(row for row in rows if row.startswith("``size``"))
    assert "int >= 1" in size
    assert "*required*" in size
    assert "number of codes K" in size
    init = next(row for row in rows if row.startswith("``init``"))
    assert "``uniform`` | ``normal`` | ``kmeans``" in init


def test_every_option_of_parts_and_sections_has_a_meaning(site: dict[str, str]) -> None:
    from _ext.parts import is_part, meanings, options, registered

    from smalti.config.schema import option_parameters

    assert all(is_part(cls) for cls in registered())
    silent = {
        f"{cls.__module__}.{name}"
        for cls in (*registered(), *options())
        if cls.__module__.startswith("smalti.")  # other tests register parts of their own
        for name in option_parameters(cls)
        if not meanings(cls).get(name)
    }
    assert silent == set()


def test_a_part_says_which_recipes_use_it(site: dict[str, str]) -> None:
    assert ":doc:`vqvae </reference/recipes/vqvae>`" in site["parts/quantizers/nearest.rst"]
    assert ":doc:`fqgan-dual-f16 " in site["parts/extractors/vision_transformer.rst"]
    assert ":doc:`vqgan-f16 " in site["parts/metrics/lpips.rst"]
    assert ":doc:`vae-kl-f8 " in site["parts/losses/lpips.rst"]


def test_a_page_of_the_root_has_links_that_hold_in_the_site(site: dict[str, str]) -> None:
    text = site["overview.md"]
    for link in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" not in link:
            beside = ROOT / "docs" / "reference" / link
            assert link in site or beside.resolve().exists(), link


def test_first_page_lists_every_page_once(site: dict[str, str]) -> None:
    from _ext.markdown import listed

    index = listed((ROOT / "docs" / "index.md").read_text(encoding="utf-8"), ROOT / "docs")
    entries = [
        line
        for block in re.findall(r"```\{toctree\}\n(.*?)```", index, re.DOTALL)
        for line in re.findall(r"[\w*/-]+(?=>?\n)", block)
    ]
    for page in (ROOT / "docs").glob("*.md"):
        count = sum(fnmatch(page.stem, entry) for entry in entries)
        assert count == (page.stem != "index"), page.name


def test_install_names_every_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    text = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == set(extras)
