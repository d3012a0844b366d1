"""The executors that come with gigq, chosen by name through their plugin."""
