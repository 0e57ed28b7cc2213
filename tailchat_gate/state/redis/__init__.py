"""The store on a Redis or Valkey server, its Sentinels or its Cluster."""
