"""An answer carries a proof of either kind; what was signed with SSH so far is one of them."""

import base64
import json

from django.db import migrations, models


def wrap(apps, editor):
    sessions = apps.get_model("access", "Session")
    for session in sessions.objects.exclude(signature=None).iterator():
        text = base64.b64encode(bytes(session.signature)).decode()
        session.proof = json.dumps({"kind": "ssh", "signature": text}).encode()
        session.save(update_fields=["proof"])


class Migration(migrations.Migration):
    dependencies = [("access", "0001_initial")]

    operations = [
        migrations.AddField("session", "proof", models.BinaryField(blank=True, null=True)),
        migrations.RunPython(wrap, migrations.RunPython.noop),
        migrations.RemoveField("session", "signature"),
    ]
