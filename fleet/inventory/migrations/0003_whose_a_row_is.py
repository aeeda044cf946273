import django.db.models.deletion
from django.db import migrations, models
from django.db.models import Count, Max


def fill(apps, schema_editor):
    """Devices that changed hands before this was noted."""
    device, ownership = apps.get_model('inventory', 'Device'), apps.get_model('inventory', 'Ownership')
    held = ownership.objects.order_by().values('device').annotate(count=Count('pk'), since=Max('starts_at'))
    for each in held.filter(count__gt=1):
        device.objects.filter(pk=each['device']).update(transferred_at=each['since'])


class Migration(migrations.Migration):

    dependencies = [
        ('inventory', '0002_device_retired'),
    ]

    operations = [
        migrations.AddField(
            model_name='device',
            name='transferred_at',
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.CreateModel(
            name='Boot',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('boot', models.CharField(max_length=32)),
                ('started_at', models.DateTimeField()),
                ('heard_at', models.DateTimeField()),
                ('ahead_ms', models.BigIntegerField()),
                ('device', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='boots', to='inventory.device')),
            ],
            options={
                'ordering': ['pk'],
                'constraints': [models.UniqueConstraint(fields=('device', 'boot'), name='boot_once')],
            },
        ),
        migrations.RunPython(fill, migrations.RunPython.noop),
    ]
