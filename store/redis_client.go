package store

import "github.com/redis/go-redis/v9"

// NewRedisClient returns a client of the Redis that the options name, for what is
// kept there beside the store, such as the queue. It does not connect; errors are
// about the options. Bound each exchange by its context.
func NewRedisClient(o RedisOptions) (redis.UniversalClient, error) {
	o.complete()
	u, err := o.universal()
	if err != nil {
		return nil, err
	}
	redis.SetLogger(quietRedis{}) // there is one for the whole process
	u.PoolSize = 0                // by the number of cores
	return redis.NewUniversalClient(u), nil
}
