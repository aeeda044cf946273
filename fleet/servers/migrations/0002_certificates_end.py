from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('servers', '0001_initial'),
    ]

    operations = [
        migrations.AddField(
            model_name='accessserver',
            name='certificates_end_at',
            field=models.DateTimeField(blank=True, null=True),
        ),
    ]
