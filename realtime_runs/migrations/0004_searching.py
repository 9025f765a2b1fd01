from django.db import migrations, models

import realtime_runs.models.run


class Migration(migrations.Migration):
    dependencies = [
        ("realtime_runs", "0003_wire"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="run",
            index=models.Index(
                realtime_runs.models.run.KeyStart("idempotency_key"),
                models.F("id"),
                condition=models.Q(("idempotency_key", ""), _negated=True),
                name="run_key_idx",
            ),
        ),
        migrations.AddIndex(
            model_name="run",
            index=models.Index(
                condition=models.Q(("error", ""), _negated=True), fields=["finished_at"], name="run_failed_idx"
            ),
        ),
    ]
