package admin

// Permission returns the permission that a method ("/pkg.Service/Method") of the API asks for, empty when any
// authenticated caller may call it or when there is no such method.
func Permission(fullMethod string) string { return rules[fullMethod].permission }
