"""What README opens with: a picture of the page, and what the demo says, in short."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_opens_with_pictures_of_the_page_and_a_demo_in_short() -> None:
    opening = README[: README.index("## Two commands")]
    pictures = re.findall(r'(?:src|srcset)="([^"]+)"', opening)
    assert pictures == ["docs/page-dark.png", "docs/page.png"]
    for picture in pictures:
        content = (ROOT / picture).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) < 300_000
    assert opening.index("docs/page.png") < opening.index("Three promises")
    short = re.search(r"<!-- demo in short -->\n```\n(.+?)```", opening, re.DOTALL)
    whole = re.search(r"<!-- demo output -->\n```\n(.+?)```", README, re.DOTALL)
    assert short
    assert whole
    said = iter(whole[1].splitlines())
    assert [line for line in short[1].splitlines() if line not in said] == []
