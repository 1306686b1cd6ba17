"""Thoughts in words: seven behaviours, at least thirty paraphrases of each, and where each sentence stands.

A solver says *what* is done (a `Step`: a behaviour and its content); `write` says it in words and keeps the true label
of every sentence. Paraphrases are split: models are trained on one split, discovery is scored on the other as well.
No word of a paraphrase belongs to one behaviour alone, so that a bag of cue words does not give the label away
(tests/training/test_organisms.py holds both).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal
from zlib import crc32

import numpy as np
from transformers import PreTrainedTokenizerBase

from probes.errors import unknown

Behaviour = Literal["initialise", "subgoal", "deduce", "compute", "check", "backtrack", "conclude"]
WordingSplit = Literal["train", "test", "all"]

# {x} is the content: a number, an equation, a clause or a place. A first sentence never begins with it: an answer given
# at once does.
PARAPHRASES: dict[Behaviour, tuple[str, ...]] = {
    "initialise": (
        "we start with {x}", "first we have {x}", "let us start at {x}", "to answer, take {x}",
        "so we begin with {x}", "here we start from {x}", "first of all it is {x}", "let us take {x} to begin",
        "we have {x} to start with", "the start is {x}", "to start, take {x}", "so first comes {x}",
        "we look at {x} first", "here we have {x}", "so here {x}", "now to {x}", "let us begin: {x}",
        "first we see {x}", "for the answer we start with {x}", "we begin at {x}", "for the start, {x}",
        "let us see what {x} gives first", "so, in all of it, first {x}", "we are at {x} now",
        "for this we have {x}", "so we are given {x}", "let us try to begin at {x}", "now we begin from {x}",
        "let us look at {x} to start", "we go from {x} for now", "once more from {x}", "we go from {x}",
    ),
    "subgoal": (
        "next we need {x}", "let us try {x}", "now try {x}", "we take {x} again", "next comes {x}", "first try {x}",
        "so we look at {x}", "let us see what {x} gives", "the other way is {x}", "not the end, on to {x}",
        "now we need {x}", "now to {x}", "let us take {x} again", "then {x} now", "so now for {x}", "so here {x}",
        "we have {x} to look at", "{x} comes now", "let us go on to {x}", "now look at {x}", "from here, try {x}",
        "we need {x}", "now start with {x}", "for the answer we need {x}", "next, look at {x}", "we begin on {x}",
        "then back to {x}", "{x} is what to try", "on to {x}", "to be sure, try {x}", "now it is {x} that we need",
        "let us look for {x}",
    ),
    "deduce": (
        "{x}", "we see that {x}", "so {x}", "here {x}", "at the end {x}", "now {x}", "then see, {x}", "for sure {x}",
        "then {x}", "we know that {x}", "it is given that {x}", "we find again that {x}", "no doubt {x}", "and {x}",
        "in this way {x}", "so we know {x}", "to see it: {x}", "we have that {x}", "first of all {x}", "next {x}",
        "here we see {x}", "to go on, {x}", "indeed {x}", "for the answer, {x}", "so indeed {x}", "we find that {x}",
        "then we see that {x}", "let us see: {x}", "it is right that {x}", "now we know that {x}", "it must be: {x}",
        "we see: {x}",
    ),
    "compute": (
        "{x}", "we get {x}", "that gives {x}", "so {x}", "this makes {x}", "now {x}", "then {x}", "we have {x}",
        "and {x}", "so we get {x}", "that is {x}", "this is {x}", "it gives {x}", "we find {x}",
        "at the end of this, {x}", "to answer: {x}", "so now {x}", "then we get {x}", "let us see: {x}",
        "in all {x}", "next {x}", "first {x}", "and then {x}", "right, {x}", "now we have {x}", "that is right: {x}",
        "no doubt {x}", "once again {x}", "back here, {x}", "indeed {x}", "we try {x}", "for sure {x}",
    ),
    "check": (
        "to be sure, {x}", "look again: {x}", "that is right: {x}", "we see again that {x}", "so {x}", "then {x}",
        "now {x}", "so {x}, right", "well, {x} indeed", "once again {x}", "the other way, {x}", "let us see: {x}",
        "let us look again: {x}", "{x}, it must be", "for sure {x}", "first look back: {x}", "it is right: {x}",
        "we must be sure: {x}", "to see it again, {x}", "and {x}, so it is right", "next to it, {x}",
        "back the other way {x}", "we have {x}", "sure, {x}", "from the start, {x}", "it must be right: {x}",
        "we try it again: {x}", "{x}", "now look back: {x}", "from the other end {x}", "once more, {x}",
        "to end it, {x}",
    ),
    "backtrack": (
        "look at {x}", "so back to {x}", "this is no way, back to {x}", "we go back to {x}",
        "that is not right, so to {x} again", "no, we start again from {x}", "let us go back to {x}",
        "not this way: again {x}", "so we look again from {x}", "next is the other way from {x}",
        "in this way no: begin at {x}", "the end, back to {x}", "we must go back to {x}",
        "this gives no answer, so {x}", "let us begin again at {x}", "no way on, back to {x}", "so again from {x}",
        "well, not that; back to {x}", "once more from {x}", "then back to {x}", "to find the end, try {x} again",
        "we take {x} again", "not so, back to {x}", "first we are at {x} again", "for sure back to {x}",
        "now back to {x}", "for the answer, {x} again", "try again from {x}", "we need {x}", "not right, so to {x}",
        "now to {x}", "we go from {x}",
    ),
    "conclude": (
        "the answer is {x}", "no other: {x}", "we end with {x}", "we need {x}", "that makes it {x}",
        "so we find the answer {x}", "so it must be {x}", "from start to end {x}", "this is the answer: {x}",
        "and so it is {x}", "we get {x} in the end", "so in all {x}", "the end is {x}", "we have {x}",
        "that gives {x}", "indeed the end is {x}", "the other end is {x}", "so here {x}",
        "we are at the end with {x}", "it comes to {x}", "so it comes to {x}", "right, it is {x}",
        "now we know the answer, {x}", "no more to try: {x}", "for sure it is {x}", "so the end of it is {x}",
        "what we need is {x}", "look back: {x}", "and that is it, {x}", "all of it makes {x}", "so we have {x}",
        "that is all: {x}",
    ),
}  # fmt: skip
BEHAVIOURS: tuple[Behaviour, ...] = tuple(PARAPHRASES)


@dataclass(frozen=True)
class Step:
    """One thing that a solver does."""

    behaviour: Behaviour
    content: str


@dataclass(frozen=True)
class Sentence:
    """Characters [start, end) of a thought: what is done there, and by which paraphrase it is said."""

    behaviour: Behaviour
    template: int
    content: str
    start: int
    end: int


@dataclass(frozen=True)
class Thought:
    """A text and its sentences, in order; between two sentences stands one blank."""

    text: str
    sentences: tuple[Sentence, ...]

    def sentence_text(self, n: int) -> str:
        return self.text[self.sentences[n].start : self.sentences[n].end]

    def token_spans(
        self, tokenizer: PreTrainedTokenizerBase, before: str = ""
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids of `before` + the thought, and for each sentence its tokens [first, last).

        Args:
            tokenizer: a fast tokenizer (offsets are needed).
            before: the text that the thought follows, its last blank included.
        """
        coded = tokenizer(before + self.text, return_offsets_mapping=True)
        ends = [end for _, end in coded["offset_mapping"]]  # type: ignore[union-attr]
        bounds = [next(i for i, e in enumerate(ends) if e > len(before) + s.start) for s in self.sentences]
        bounds.append(next(i for i, e in enumerate(ends) if e == len(before) + len(self.text)) + 1)
        return list(coded["input_ids"]), list(pairwise(bounds))  # type: ignore[arg-type]


def templates(behaviour: Behaviour, split: WordingSplit) -> list[int]:
    """The numbers of a behaviour's paraphrases of one split: about a quarter is for tests.

    The split depends on the wording alone, so that what two behaviours share is on the same side.
    """
    if split not in ("train", "test", "all"):
        raise unknown("split", split, ["train", "test", "all"])
    wordings = PARAPHRASES[behaviour]
    return [n for n, w in enumerate(wordings) if split == "all" or (crc32(w.encode()) % 4 == 0) == (split == "test")]


def write(steps: Sequence[Step], rng: np.random.Generator, split: WordingSplit = "train") -> Thought:
    """Say the steps in words, each with a paraphrase drawn from one split."""
    pieces: list[str] = []
    sentences: list[Sentence] = []
    at = 0
    for step in steps:
        choice = templates(step.behaviour, split)
        number = choice[int(rng.integers(len(choice)))]
        said = PARAPHRASES[step.behaviour][number].replace("{x}", step.content)
        said = f"{said[0].upper()}{said[1:]}."
        sentences.append(Sentence(step.behaviour, number, step.content, at, at + len(said)))
        pieces.append(said)
        at += len(said) + 1
    return Thought(" ".join(pieces), tuple(sentences))
