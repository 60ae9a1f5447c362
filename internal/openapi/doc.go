// Package openapi writes the OpenAPI 3.1 document of the admin API's REST face
// from the proto files: their HTTP rules say which paths there are, their
// messages what goes in and out in protojson's form, and their comments become
// the descriptions.
//
// [Sources] reads proto files with their comments, [Document] turns services
// into the document. The program in generate writes admin/openapi.json, which
// the admin port serves at /openapi.json; a test here proves that the file is
// fresh, one in admin that it names every route and no other.
package openapi
