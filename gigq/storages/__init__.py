"""The storages that come with gigq. They are chosen by URL, through their plugin, and never imported."""
