"""What the clients of Azure Service Bus expect of a broker besides AMQP 1.0: sessions whose
receivers lock messages, and whose senders send batches.

    | address                 |                                                               |
    |-------------------------|---------------------------------------------------------------|
    | $cbs                    | tokens, see cbs.py; all else needs one that covers its entity |
    | q                       | the queue of this name; as a target, else the exchange, whose |
    |                         | key is each message's subject                                 |
    | q/$DeadLetterQueue      | a durable queue of this name, made when it is first needed    |
    | t/Subscriptions/s       | the queue of this name                                        |
    | entity/$management      | see management.py                                              |

before each of them perhaps amqps://host:port/, which means nothing here.

What is sent is stored as persistent, whatever its header says, and gets a message-id. A delivery
that the peer does not settle within the time of its lock goes back to its queue. Not there:
sessions of Service Bus, and messages that are enqueued later.

Of gateways; imported with the first peer that logs in without a user where there are shared access
keys.
"""
