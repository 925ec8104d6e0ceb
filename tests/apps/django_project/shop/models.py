"""What the database holds."""

from django.db import models


class Sale(models.Model):
    """One sale."""

    amount = models.IntegerField()

    class Meta:
        """The app's name, which is not the module's first part."""

        app_label = "shop"
