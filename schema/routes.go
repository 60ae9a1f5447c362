package schema

type routeTable struct{}
