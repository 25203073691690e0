"""Networks on points: features of keypoints and of places inside boxes, gathered from what lies around them."""
