"""A gigq plugin to copy: a storage, a serializer and an executor, each small and real."""
