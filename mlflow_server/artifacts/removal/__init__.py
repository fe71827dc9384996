"""Remove the artifacts of entities from wherever they are: local disks, object stores."""
