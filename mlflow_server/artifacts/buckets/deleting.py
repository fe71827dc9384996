"""Delete objects of a bucket, and try again what can only not be deleted just now."""

import time
from collections.abc import Mapping, Sequence

from mlflow_server.artifacts.buckets.bucket import Bucket, Refusal

# Between attempts.
_PAUSES_S = (0.2, 0.5, 1.0, 2.0)


def delete_patiently(bucket: Bucket, keys: Sequence[str]) -> Mapping[str, Refusal]:
    """Delete objects, some of them several times if need be.

    Args:
        bucket: Where they are.
        keys: At most as many as the bucket takes at a time.

    Returns:
        Those that could not be deleted.
    """
    refusals: dict[str, Refusal] = {}
    for pause_s in (0.0, *_PAUSES_S):
        time.sleep(pause_s)
        refused = bucket.delete(keys)
        refusals = {**{key: refusals[key] for key in refusals.keys() - set(keys)}, **refused}
        keys = [key for key, refusal in refused.items() if refusal.is_temporary]
        if not keys:
            break
    return refusals
