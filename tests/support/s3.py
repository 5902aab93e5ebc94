"""An S3 server on loopback, with object lock."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
import httpx2
from moto.server import ThreadedMotoServer

from tests.support.patience import PATIENCE_S

ACCESS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket that keeps every version of its objects."""

    name: str
    url: str
    client: Any

    @property
    def environment(self) -> dict[str, str]:
        return {**ACCESS, "AWS_ENDPOINT_URL": self.url, "AWS_ALLOW_HTTP": "true"}

    def keys(self) -> list[str]:
        return [item["Key"] for item in self.client.list_objects_v2(Bucket=self.name).get("Contents", [])]

    def delete(self, key: str, version: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=key, VersionId=version)

    def versions(self, key: str) -> list[str]:
        found = self.client.list_object_versions(Bucket=self.name, Prefix=key)["Versions"]
        return [item["VersionId"] for item in found]


@contextmanager
def locked_bucket(name: str = "audit", days: int | None = 365, mode: str = "COMPLIANCE") -> Iterator[Bucket]:
    """A bucket whose objects nobody may delete or replace for a year; without `days` it locks nothing by itself."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    try:
        client = boto3.client(
            "s3",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
        if days is not None:
            rule = {"DefaultRetention": {"Mode": mode, "Days": days}}
            client.put_object_lock_configuration(
                Bucket=name, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
            )
        yield Bucket(name, url, client)
    finally:
        httpx2.post(
            f"{url}/moto-api/reset", timeout=PATIENCE_S
        )  # Its buckets would outlive the server, in this process.
        server.stop()
