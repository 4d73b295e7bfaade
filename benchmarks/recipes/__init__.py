"""The recipes on real data: what each comes to beside its peers, and what single settings are worth."""
