"""``mstarctl data``: bring data sets into the form a run reads, check them, look at them."""

import json
import shlex
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mstarctl.machine import cores
from mstarctl.options import INTERRUPTED, Output, OutputOption

if TYPE_CHECKING:
    from mstar.data.importing.records import Report, Row, Shares, Skipped, Tally

app = typer.Typer(help="Import data sets, check them, look at samples.", no_args_is_help=True)
importing = typer.Typer(
    help="Write the splits of a published data set, or of a table of your own.",
    no_args_is_help=True,
)
app.add_typer(importing, name="import")

OutOption = Annotated[
    Path | None,
    typer.Option("--out", help="Folder to write; else data/ and the name.", show_default=False),
]
LabeledOption = Annotated[
    float,
    typer.Option(
        min=0.0, max=1.0, help="Share of the rows to train on with answers; the rest is unlabeled."
    ),
]
TestOption = Annotated[int, typer.Option(min=0, help="Rows to test on.")]
ValidationOption = Annotated[int, typer.Option(min=0, help="Rows to validate on.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of what goes into which split.")]
WorkersOption = Annotated[
    int | None, typer.Option(min=1, help="Processes; else as many as there are cores.")
]
FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of Parquet splits.")]


@importing.command()
def mathv360k(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="Folder with train_samples_all_tuning.json and data_images/."
        ),
    ],
    out: OutOption = None,
    labeled: LabeledOption = 0.5,
    test: TestOption = 750,
    validation: ValidationOption = 250,
    seed: SeedOption = 0,
    workers: WorkersOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """MathV360K: half labeled, half unlabeled, of which 750 to test and 250 to validate; split by image."""
    from mstar.data.importing.mathv360k import find_files, read_mathv360k
    from mstar.data.importing.records import Shares

    annotations, images = find_files(folder)
    _import(
        read_mathv360k(annotations, images),
        out or Path("data") / "mathv360k",
        {"format": "mathv360k", "files": _facts([annotations]), "images": str(images.resolve())},
        Shares(labeled=labeled, test=test, validation=validation),
        seed,
        workers,
        as_json=output is Output.JSON,
    )


def _table_command(form: str, help_: str) -> Callable[..., None]:
    """The command for one kind of table; they differ in how the file is read alone."""

    def command(
        path: Annotated[Path, typer.Argument(metavar="PATH", help=help_)],
        out: OutOption = None,
        mapping: Annotated[
            list[str] | None,
            typer.Option(
                "--map",
                metavar="PART=COLUMN",
                help="Which column holds id, image, question, answer, source; options=A,B,C,D for several.",
            ),
        ] = None,
        images: Annotated[
            Path | None,
            typer.Option(help="Where the paths of images begin; else beside the table."),
        ] = None,
        split: Annotated[
            str | None, typer.Option(help="Which split, where there are several (hf).")
        ] = None,
        answer_from: Annotated[
            int | None,
            typer.Option(min=0, max=1, help="Answers are numbers of options, from 0 or from 1."),
        ] = None,
        choices_inside: Annotated[
            bool,
            typer.Option("--choices-inside", help="The question's text holds the list of choices."),
        ] = False,
        labeled: LabeledOption = 0.5,
        test: TestOption = 750,
        validation: ValidationOption = 250,
        seed: SeedOption = 0,
        workers: WorkersOption = None,
        output: OutputOption = Output.TEXT,
    ) -> None:
        from mstar.data.importing.fields import parse_columns
        from mstar.data.importing.records import Shares
        from mstar.data.importing.tables import Format, open_table, read_table

        if split and form != Format.HF:
            raise typer.BadParameter("--split chooses among the splits that datasets saved; see hf")
        table = open_table(Format(form), path, split)
        columns = parse_columns(
            mapping or [],
            table.columns,
            answer_from=answer_from,
            choices_inside=choices_inside,
        )
        root = images or (path if path.is_dir() else path.parent)
        facts = {
            "format": form,
            "files": _facts(table.files),
            "images": str(root.resolve()),
            "columns": asdict(columns),
        }
        _import(
            read_table(table, columns, root),
            out or Path("data") / path.stem,
            facts,
            Shares(labeled=labeled, test=test, validation=validation),
            seed,
            workers,
            as_json=output is Output.JSON,
        )

    return command


for _form, _path, _what in (
    ("jsonl", "JSON lines, or one JSON list.", "A table of JSON objects, one a line."),
    ("parquet", "A Parquet file, or a folder of them.", "Parquet files of any columns."),
    ("tsv", "A TSV file with a head.", "Tab-separated values, images as paths or base64."),
    ("hf", "What datasets' save_to_disk or the hub has.", "A data set of Hugging Face datasets."),
):
    importing.command(name=_form, help=_what)(_table_command(_form, _path))


@app.command()
def check(
    folder: FolderArgument,
    max_pixels: Annotated[
        int | None,
        typer.Option(min=1, help="Largest image taken; else as a run's execution.max_pixels."),
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Look at every row as a run would, and for images that two splits share."""
    from mstar.data.importing.checking import check_data, find_splits
    from mstar.errors import DataError
    from mstar.execution import Execution
    from mstarctl import show

    as_json = output is Output.JSON
    most = max_pixels or Execution().max_pixels
    with show.bar("checking", as_json=as_json) as tell:
        found = check_data(find_splits(folder), tell, max_pixels=most)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=1, ensure_ascii=False))
    else:
        _print_splits(f"{folder}", found.splits)
        for what, count in found.odd.items():
            show.output.print(
                f"{count:,} images are {what}: a run shows them as plain RGB, and mstarctl data import stores them so"
            )
    if found.shared:
        pairs = ", ".join(f"{pair}: {count:,}" for pair, count in found.shared.items())
        raise DataError(
            f"splits share images, so what is measured leaks ({pairs}); split by image.\n  "
            + "\n  ".join(found.examples)
        )


@app.command()
def show(
    folder: FolderArgument,
    out: Annotated[Path, typer.Option("--out", help="The HTML file to write.")] = Path(
        "samples.html"
    ),
    samples: Annotated[int, typer.Option(min=1, max=500, help="Samples of each split.")] = 12,
    split: Annotated[str | None, typer.Option(help="Only this split.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draw.")] = 0,
    output: OutputOption = Output.TEXT,
) -> None:
    """Write one self-contained HTML page with samples of each split."""
    from mstar.data.importing.checking import find_splits
    from mstar.data.splits import find_split
    from mstar.report.document import write_whole
    from mstar.report.samples import draw, samples_page
    from mstarctl import show as say

    splits = [find_split(folder, split)] if split else find_splits(folder)
    drawn = [draw(one, samples, seed) for one in splits]
    page = samples_page(folder, drawn, seed, now=time.time()).encode()
    write_whole(out, page)
    count = sum(len(one.samples) for one in drawn)
    facts = {"page": str(out), "samples": count, "bytes": len(page)}
    say.message(f"Wrote {out}: {count} samples", facts, as_json=output is Output.JSON)


def _import(
    rows: "Iterable[Row | Skipped]",
    out: Path,
    identity: Mapping[str, Any],
    shares: "Shares",
    seed: int,
    workers: int | None,
    *,
    as_json: bool,
) -> None:
    from mstar.data.importing.records import Asked
    from mstar.data.importing.whole import import_data
    from mstarctl import show as say

    asked = Asked(identity=dict(identity), shares=shares, seed=seed, workers=workers or cores())
    try:
        with say.bar("importing", as_json=as_json) as tell:
            report = import_data(rows, out, asked, tell)
    except KeyboardInterrupt:
        typer.echo("\nmstarctl: interrupted; the same command goes on where this stopped", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        body = {"out": str(out), **asdict(report)}
        typer.echo(json.dumps(body, indent=1, ensure_ascii=False))
    else:
        _print_report(out, report, shares)


def _print_report(out: Path, report: "Report", shares: "Shares") -> None:
    from mstar.data.importing.whole import PROBLEMS
    from mstarctl import show as say

    say.output.print(
        f"Read {report.read:,} rows and {report.images:,} images, of which {report.broken:,} cannot be used.",
        soft_wrap=True,
    )
    _print_splits(f"{out}", report.splits)
    total = sum(tally.rows for tally in report.splits.values())
    wanted, found = round(total * shares.labeled), report.splits["train"].rows
    if found < wanted and shares.labeled < 1:
        line = (
            f"train has {found:,} of the {wanted:,} rows that --labeled {shares.labeled:g} asks for: test takes "
            f"{shares.test:,} and validation {shares.validation:,}, and nothing is left for unlabeled"
        )
        say.output.print(line, soft_wrap=True)
    for reason, count in sorted(report.dropped.items(), key=lambda item: -item[1]):
        line = f"Left out {count:,}: {reason}, such as {report.examples[reason][0]}"
        say.output.print(line, soft_wrap=True, markup=False)
    for what, count in report.fixed.items():
        before, after = what.split(": ")
        say.output.print(f"Stored anew {count:,} images: {before}, now {after}")
    if report.dropped:
        say.output.print(f"All that is left out, and why: {out / PROBLEMS}", soft_wrap=True)
    say.output.print(f"Look at samples: mstarctl data show {shlex.quote(str(out))}", soft_wrap=True)


def _print_splits(title: str, splits: "Mapping[str, Tally]") -> None:
    from rich.table import Table as Grid

    from mstarctl import show as say

    grid = Grid(title=title, title_justify="left", box=None, pad_edge=False)
    grid.add_column("split")
    grid.add_column("rows", justify="right")
    grid.add_column("images", justify="right")
    grid.add_column("answers", overflow="fold")
    for name, tally in splits.items():
        shares = ", ".join(f"{kind} {n / tally.rows:.0%}" for kind, n in tally.types.items())
        grid.add_row(name, f"{tally.rows:,}", f"{tally.images:,}", shares)
    say.output.print(grid)


def _facts(files: Iterable[Path]) -> list[list[Any]]:
    """What changes when a file does."""
    found = ((file.resolve(), file.stat()) for file in files)
    return [[str(path), stat.st_size, stat.st_mtime_ns] for path, stat in found]
