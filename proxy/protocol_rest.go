package proxy

// The REST edge is being written in this file and in rest_*.go by another author right now; the Connect edge is not.
