"""What somebody may do to a run in the admin. Each is a page of its own: it says what will happen, asks for what it
needs, and shows what was wrong with that; then nothing was done.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Final

from django import forms
from django.http import HttpRequest

from realtime_runs import input_streams, runs, wait
from realtime_runs.access.policy import Action
from realtime_runs.admin import bounded
from realtime_runs.admin.run_page import LONGEST_TEXT, pretty, tokens_of
from realtime_runs.display.text import showable
from realtime_runs.exceptions import RealtimeRunsError
from realtime_runs.models import Run, Stream
from realtime_runs.models.stream import INPUT
from realtime_runs.packets import NOTHING, PLAIN_TEXT, Packet, parse
from realtime_runs.statuses import FINAL

_JSON: Final = {"rows": 8, "spellcheck": "false"}
_SUGGESTED: Final = {"list": "rr-known", "autocomplete": "off", "spellcheck": "false"}


class JsonField(forms.CharField):
    """A JSON text; its value. An empty one is None."""

    def __init__(self, **options: Any) -> None:
        super().__init__(strip=False, widget=forms.Textarea(attrs=_JSON), **options)

    def clean(self, value: Any) -> Any:
        text = super().clean(value)
        try:
            return parse(text, "This") if text.strip() else None
        except RealtimeRunsError as error:
            raise forms.ValidationError(showable(str(error))) from None


@dataclass(frozen=True, slots=True)
class Done:
    """`message`: for who did it. `log`: for the history. `run_id`: the run to look at now."""

    message: str
    log: str
    run_id: str


class RunAction:
    """One of the things that can be done. `form`: what is asked for."""

    name: ClassVar[str]
    action: ClassVar[Action]
    link: ClassVar[str]
    title: ClassVar[str]
    button: ClassVar[str]
    form: ClassVar[type[forms.Form]] = forms.Form
    destroys: ClassVar[bool] = False

    def refusal(self, run: Run) -> str:
        """Why it cannot be done now, in words; empty when it can."""
        return f"The run is over ({run.get_status_display()})." if run.status in FINAL else ""

    def context(self, run: Run) -> dict[str, Any]:
        """For the template."""
        return {}

    def initial(self, run: Run) -> dict[str, Any]:
        return {}

    def perform(self, run: Run, data: dict[str, Any]) -> Done:
        """In a transaction. Raises RealtimeRunsError; then nothing was done."""
        raise NotImplementedError

    def fill(self, request: HttpRequest, run: Run) -> forms.Form:
        return self.form(request.POST if request.method == "POST" else None, initial=self.initial(run))


class Cancel(RunAction):
    name, action, link = "cancel", "cancel", "Cancel"
    title, button = "Cancel this run?", "Yes, cancel the run"
    destroys = True

    def context(self, run: Run) -> dict[str, Any]:
        return {"unfinished_children": bounded.count(Run.objects.unfinished().filter(parent=run.pk))}

    def perform(self, run: Run, data: dict[str, Any]) -> Done:
        after = runs.cancel(run.pk)
        if not after.is_cancelled:
            words = f"There was nothing to cancel: the run had just ended ({after.status.label})."
            return Done(words, "Tried to cancel the run, which was over.", run.pk)
        return Done("The run is canceled. What its task still writes is not stored.", "Canceled the run.", run.pk)


class ReplayForm(forms.Form):
    payload = forms.CharField(required=False, strip=False, widget=forms.Textarea(attrs={**_JSON, "rows": 14}))


class Replay(RunAction):
    name, action, link = "replay", "replay", "Replay"
    title, button = "Replay this run", "Start the new run"
    form = ReplayForm

    def refusal(self, run: Run) -> str:
        return ""

    def context(self, run: Run) -> dict[str, Any]:
        return {"is_fixed": self._is_long(run)}

    def initial(self, run: Run) -> dict[str, Any]:
        row: Any = run
        text = row.payload_start or ""
        return {"payload": "" if self._is_long(run) else text if run.payload_type == PLAIN_TEXT else pretty(text)}

    def perform(self, run: Run, data: dict[str, Any]) -> Done:
        text = _unix(data.get("payload", ""))
        if self._is_long(run) or text == _unix(self.initial(run)["payload"]):
            new, how = runs.replay(run.pk), "with the same payload"
        else:
            packet = Packet(text, run.payload_type) if text.strip() else NOTHING
            new, how = runs.replay(run.pk, payload=packet), "with another payload"
        return Done(f"This is the new run, started like {run.pk} {how}.", f"Replayed as {new.id}, {how}.", new.id)

    @staticmethod
    def _is_long(run: Run) -> bool:
        row: Any = run
        return (row.payload_length or 0) > LONGEST_TEXT


def _unix(text: str) -> str:
    """Browsers send forms with line ends of their own."""
    return text.replace("\r\n", "\n")


class SendForm(forms.Form):
    key = forms.CharField(max_length=255, label="Input stream", widget=forms.TextInput(attrs=_SUGGESTED))
    value = JsonField(label="Data, as JSON")


class Send(RunAction):
    name, action, link = "send", "send", "Send input"
    title, button = "Send to an input stream", "Send"
    form = SendForm

    def context(self, run: Run) -> dict[str, Any]:
        return {"known": self._keys(run)}

    def initial(self, run: Run) -> dict[str, Any]:
        keys = self._keys(run)
        return {"key": keys[0] if len(keys) == 1 else ""}

    def perform(self, run: Run, data: dict[str, Any]) -> Done:
        input_streams.input(data["key"]).send(run.pk, data["value"])
        words = f"Sent to the input stream “{data['key']}”. The task gets it when it asks for it."
        return Done(words, f"Sent to the input stream “{data['key']}”.", run.pk)

    @staticmethod
    def _keys(run: Run) -> list[str]:
        return list(Stream.objects.filter(run=run.pk, kind=INPUT).order_by("key").values_list("key", flat=True)[:20])


class CompleteForm(forms.Form):
    token = forms.CharField(max_length=40, label="Wait token", widget=forms.TextInput(attrs=_SUGGESTED))
    value = JsonField(label="Output, as JSON", required=False)

    def clean_token(self) -> str:
        token_id: str = self.cleaned_data["token"]
        try:
            token = wait.retrieve_token(token_id)
        except RealtimeRunsError:
            raise forms.ValidationError("There is no wait token with this id.") from None
        if not token.is_waiting:
            words = "is completed already" if token.is_completed else "has timed out"
            raise forms.ValidationError(f"This wait token {words}. Completing it would change nothing.")
        return token_id


class Complete(RunAction):
    name, action, link = "complete", "complete", "Complete a wait token"
    title, button = "Complete a wait token", "Complete"
    form = CompleteForm

    def context(self, run: Run) -> dict[str, Any]:
        tokens = tokens_of(run)
        return {"tokens": tokens, "known": [token.pk for token in tokens]}

    def initial(self, run: Run) -> dict[str, Any]:
        tokens = tokens_of(run)
        return {"token": tokens[0].pk if len(tokens) == 1 else ""}

    def perform(self, run: Run, data: dict[str, Any]) -> Done:
        token = wait.complete_token(data["token"], data["value"])
        return Done("The wait token is completed. Who waits for it goes on.", f"Completed {token.id}.", run.pk)


ACTIONS: Final[dict[str, RunAction]] = {action.name: action for action in (Cancel(), Replay(), Send(), Complete())}
