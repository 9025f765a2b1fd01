"""The forms that start the demo tasks."""

import json
from dataclasses import dataclass
from typing import Any

from django import forms

from realtime_runs import tasks
from realtime_runs.exceptions import NotJson, RealtimeRunsError
from realtime_runs.packets import parse


@dataclass(frozen=True)
class Sample:
    """A demo task, in the page's words, with a payload that shows what it does."""

    task: str
    text: str
    payload: Any


SAMPLES = [
    Sample(
        "import-airports",
        "Reads 3,376 airports, judges each row, counts by state.",
        {"file": "airports.csv", "delayMs": 90},
    ),
    Sample(
        "progress-task",
        "Goes through a list of items and says which one it is at.",
        {"items": ["Ada", "Barbara", "Edsger", "Grace", "Leslie", "Margaret", "Tony"], "delayMs": 600},
    ),
    Sample(
        "summarise-file",
        "Streams a text paragraph by paragraph, then picks the sentences that say most about it.",
        {"file": "docs/explanation/how-it-works.md", "sentences": 5, "delayMs": 300},
    ),
    Sample("tell-story", "Streams a text as a language model would.", {"delayMs": 120}),
    Sample(
        "stream-text",
        "Streams words, one chunk each.",
        {"text": "The quick brown fox jumps over the lazy dog.", "delayMs": 300},
    ),
    Sample("multi-stream", "Writes three streams in turn.", {"count": 10, "delayMs": 300}),
    Sample(
        "wait-approval",
        "Waits until somebody approves, in another tab or on another machine.",
        {"mode": "input", "timeoutSeconds": 3600},
    ),
    Sample("slow", "Sleeps. Cancel it and it wakes at once.", {"seconds": 20}),
    Sample("echo", "Gives its payload back.", {"hello": "world"}),
    Sample("fail", "Raises an exception.", {"message": "boom"}),
]


class TriggerForm(forms.Form):
    """Starts one of the samples with its own payload, or with an edited one."""

    use_required_attribute = False
    task = forms.ChoiceField(choices=[(sample.task, sample.task) for sample in SAMPLES], widget=forms.HiddenInput)
    payload = forms.CharField(
        label="Payload (JSON)", strip=False, widget=forms.Textarea(attrs={"rows": 5, "spellcheck": "false"})
    )

    def clean_payload(self) -> Any:
        try:
            return parse(self.cleaned_data["payload"], "Payload")
        except NotJson as error:
            raise forms.ValidationError(str(error)) from error

    def trigger(self) -> str | None:
        """Start the run; its id, or None when the task refuses the payload, which is an error of the form then."""
        try:
            return tasks.trigger(self.cleaned_data["task"], self.cleaned_data["payload"], tags=["demo"]).id
        except RealtimeRunsError as error:
            self.add_error("payload", str(error))
            return None


def sample_forms(submitted: TriggerForm | None = None) -> list[tuple[Sample, TriggerForm]]:
    """Each sample with its form; the one that was submitted keeps its input and errors."""
    forms_ = []
    for sample in SAMPLES:
        form = TriggerForm(
            initial={"task": sample.task, "payload": json.dumps(sample.payload, indent=2)}, auto_id=f"{sample.task}-%s"
        )
        if submitted is not None and submitted["task"].value() == sample.task:
            submitted.auto_id = form.auto_id
            form = submitted
        forms_.append((sample, form))
    return forms_
