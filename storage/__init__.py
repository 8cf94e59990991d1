"""What Darkroom keeps: bytes (blobs), rows (manifests, ledgers) and questions about them. No torch, no Prefect."""
