"""What the HTTP API must remember between requests."""

import secrets

from django.db import models


def new_nonce() -> str:
    return secrets.token_hex(8)


class SpentToken(models.Model):
    """A single-use token or ticket that was used (wire-protocol 2.5). Kept until it would have expired."""

    digest = models.CharField(max_length=64, primary_key=True, help_text="SHA-256 of its text, in hex")
    nonce = models.CharField(max_length=16, default=new_nonce, help_text="of the use, so that one of several knows it")
    expires_at = models.DateTimeField()

    class Meta:
        db_table = "realtime_runs_spent_token"
        indexes = [models.Index(fields=["expires_at"], name="spent_token_expires_idx")]

    def __str__(self) -> str:
        return f"{self.digest[:8]}…"


class AnsweredRequest(models.Model):
    """What a request made, so that its repetition gets the same answer (wire-protocol 1.5). Kept for a few minutes."""

    digest = models.CharField(max_length=64, primary_key=True, help_text="SHA-256 of the route and the request's key")
    made = models.CharField(max_length=40, help_text="id of the run or batch")
    created_at = models.DateTimeField()

    class Meta:
        db_table = "realtime_runs_answered_request"
        indexes = [models.Index(fields=["created_at"], name="answered_request_created_idx")]

    def __str__(self) -> str:
        return f"{self.digest[:8]}… made {self.made}"
