# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The values that fill the corpus's texts: names, sums, numbers, weather, each drawn at random."""

from collections.abc import Callable
from random import Random

from helexa.neuron.tiny.make.phrases import Phrases, phrases

Fields = dict[str, str | int]

SHORT_COUNTS = (3, 5, 5, 10, 10, 10, 20, 20)
LONG_COUNTS = (50, 100, 100)
WEATHERS = ("sunny", "rain", "cloudy", "snow", "windy")


def fields_of(rng: Random, name: str, table: str) -> Fields:
    """Values from the function called `name` or from `table`; none where both are empty."""
    corpus = phrases()
    if name:
        return _FIELDS[name](rng, corpus)
    if not table:
        return {}
    entries = corpus.tables[table]
    key = rng.choice(list(entries))
    return {"key": key, "Key": key[0].upper() + key[1:], "value": entries[key]}


def _name(rng: Random, corpus: Phrases) -> Fields:
    return {"name": rng.choice(corpus.words["names"])}


def _summands(rng: Random, _: Phrases) -> Fields:
    a, b = rng.randint(0, 20), rng.randint(0, 20)
    return {"a": a, "b": b, "sum": a + b}


def _large_summands(rng: Random, _: Phrases) -> Fields:
    a, b = rng.randint(0, 99), rng.randint(0, 99)
    return {"a": a, "b": b, "sum": a + b}


def _numbers(end: int) -> str:
    return ", ".join(str(number) for number in range(1, end + 1))


def _short_count(rng: Random, corpus: Phrases) -> Fields:
    end = rng.choice(SHORT_COUNTS)
    written = rng.choice((str(end), corpus.words["numbers"][end]))
    return {"end": written, "numbers": _numbers(end)}


def _long_count(rng: Random, _: Phrases) -> Fields:
    end = rng.choice(LONG_COUNTS)
    return {"end": end, "numbers": _numbers(end)}


def _opposites(rng: Random, corpus: Phrases) -> Fields:
    key, value = rng.choice(list(corpus.tables["opposites"].items()))
    a, b = rng.choice(((key, value), (value, key)))
    return {"a": a, "b": b}


def _days(rng: Random, corpus: Phrases) -> Fields:
    days = corpus.words["days"]
    today = rng.randrange(len(days))
    after = days[(today + 1) % len(days)]
    return {"day": days[today], "after": after, "before": days[today - 1]}


def _unknown(rng: Random, corpus: Phrases) -> Fields:
    word, other = rng.sample(corpus.words["unknown"], 2)
    return {"word": word, "other": other, "language": rng.choice(corpus.words["languages"])}


def _repeated(rng: Random, corpus: Phrases) -> Fields:
    known = [
        *corpus.words["unknown"],
        *corpus.tables["opposites"],
        *corpus.words["names"],
        *corpus.tables["animals"],
    ]
    return {"words": " ".join(rng.choices(known, k=rng.randint(1, 4)))}


def _person(rng: Random, corpus: Phrases) -> Fields:
    country, capital = rng.choice(list(corpus.tables["capitals"].items()))
    return {
        "name": rng.choice(corpus.words["names"]),
        "age": rng.randint(1, 99),
        "city": rng.choice(corpus.all_cities()),
        "country": country,
        "capital": capital,
    }


def _weather(rng: Random, corpus: Phrases) -> Fields:
    return {
        "city": rng.choice(corpus.all_cities()),
        "degrees": rng.randint(-5, 35),
        "weather": rng.choice(WEATHERS),
    }


def _time(rng: Random, corpus: Phrases) -> Fields:
    time = f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"
    return {"city": rng.choice(corpus.all_cities()), "time": time}


def _search(rng: Random, corpus: Phrases) -> Fields:
    query = " ".join(rng.sample(corpus.words["unknown"], rng.choice((1, 2))))
    return {"query": query, "count": rng.randint(1, 9)}


_FIELDS: dict[str, Callable[[Random, Phrases], Fields]] = {
    "name": _name,
    "summands": _summands,
    "large_summands": _large_summands,
    "short_count": _short_count,
    "long_count": _long_count,
    "opposites": _opposites,
    "days": _days,
    "unknown": _unknown,
    "repeated": _repeated,
    "person": _person,
    "weather": _weather,
    "time": _time,
    "search": _search,
}
