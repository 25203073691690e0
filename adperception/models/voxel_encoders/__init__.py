"""From points in voxels to voxel features."""
