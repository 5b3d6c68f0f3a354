"""Steps as Kubernetes Jobs: rendering and diagnosis are pure, the API is at the edge."""
